"""Factor and solve symmetric positive definite systems, small ones written out."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

# Up to this size linear algebra is written out as elementwise operations: XLA fuses
# them into one loop over a batch, where a library call per matrix would dominate.
SMALL = 6


def factor(matrix: jax.Array) -> Callable[[jax.Array], jax.Array]:
    """The solution map x ↦ A⁻¹x of a symmetric positive definite A (n, n).

    Only the lower triangle is read. An indefinite A gives NaN or a useless
    finite answer; callers keep the best certified iterate.
    """
    return _unrolled(matrix) if matrix.shape[0] <= SMALL else _cholesky(matrix)


def _cholesky(matrix: jax.Array) -> Callable[[jax.Array], jax.Array]:
    lower = lax.linalg.cholesky(matrix, symmetrize_input=False)

    def solve(rhs: jax.Array) -> jax.Array:
        half = lax.linalg.triangular_solve(lower, rhs[:, None], left_side=True, lower=True)
        full = lax.linalg.triangular_solve(
            lower, half, left_side=True, lower=True, transpose_a=True
        )
        return full[:, 0]

    return solve


def _unrolled(matrix: jax.Array) -> Callable[[jax.Array], jax.Array]:
    """A = L D Lᵀ with unit lower triangular L: no square root, no loop."""
    size = matrix.shape[0]
    lower: list[list[jax.Array]] = [[] for _ in range(size)]
    pivots: list[jax.Array] = []
    for i in range(size):
        for j in range(i):
            entry = matrix[i, j]
            for k in range(j):
                entry = entry - lower[i][k] * lower[j][k] * pivots[k]
            lower[i].append(entry / pivots[j])
        pivot = matrix[i, i]
        for k in range(i):
            pivot = pivot - lower[i][k] * lower[i][k] * pivots[k]
        pivots.append(pivot)

    def solve(rhs: jax.Array) -> jax.Array:
        x = [rhs[i] for i in range(size)]
        for i in range(size):
            for k in range(i):
                x[i] = x[i] - lower[i][k] * x[k]
        x = [entry / pivot for entry, pivot in zip(x, pivots, strict=True)]
        for i in reversed(range(size)):
            for k in range(i + 1, size):
                x[i] = x[i] - lower[k][i] * x[k]
        return jnp.stack(x)

    return solve


def matvec(matrix: jax.Array, vector: jax.Array) -> jax.Array:
    """matrix (T, T) times vector (T,) at full precision on every backend."""
    if vector.size <= SMALL:
        return jnp.sum(matrix * vector[None, :], axis=1)
    return jnp.matmul(matrix, vector, precision=lax.Precision.HIGHEST)


def dot(left: jax.Array, right: jax.Array) -> jax.Array:
    """⟨left, right⟩ of two (T,) vectors at full precision on every backend."""
    return jnp.dot(left, right, precision=lax.Precision.HIGHEST)
