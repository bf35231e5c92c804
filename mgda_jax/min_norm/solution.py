"""The answer and its certificates: how far weights are from the min-norm point."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

# Up to this size linear algebra is written out as elementwise operations: XLA fuses
# them into one loop over a batch, where a library call per matrix would dominate.
SMALL = 6


class MinNormSolution(NamedTuple):
    """The min-norm point d = Σ_t w_t g_t with its certificate.

    Attributes:
      weights: (T,) on the simplex, in the Gramian's dtype; NaN where the Gramian
        is no Gramian (NaN, Inf, negative diagonal), zero where no task is active.
      norm: () ‖d‖ = √(wᵀMw) · 2^exponent. Near a stationary point M itself is
        rounded, so below √eps · Σ w_t ‖g_t‖ the value is noise.
      kkt: () max_t (‖d‖² − ⟨g_t, d⟩) / (‖g_t‖ · Σ_s w_s ‖g_s‖), never negative:
        zero at the optimum, of the order of eps at a solution, at most about 2. It
        is free of the scale of the Gramian.
      steps: () int32, steps taken; zero for a closed form.
    """

    weights: jax.Array
    norm: jax.Array
    kkt: jax.Array
    steps: jax.Array


def kkt(matrix: jax.Array, weights: jax.Array, active: jax.Array | None = None) -> jax.Array:
    """max_t (‖d‖² − ⟨g_t, d⟩) / (‖g_t‖ S₁), S₁ = Σ_s w_s ‖g_s‖: the scale-free residual.

    Args:
      matrix: (T, T) Gramian; inactive rows finite.
      weights: (T,) on the simplex, zero where inactive.
      active: (T,) bool or None.

    Returns:
      () at least zero; zero when every weighted row is zero.
    """
    norms, excess, s1 = _excess(matrix, weights)
    return _largest(excess, norms * s1, active)


def kkt_backward(
    matrix: jax.Array, weights: jax.Array, active: jax.Array | None = None
) -> jax.Array:
    """max_t (‖d‖² − ⟨g_t, d⟩) / ((‖g_t‖ + S₁) S₁): the backward error of the weights.

    Arguments and result as in `kkt`.
    """
    norms, excess, s1 = _excess(matrix, weights)
    return _largest(excess, (norms + s1) * s1, active)


def gap(matrix: jax.Array, weights: jax.Array, active: jax.Array | None = None) -> jax.Array:
    """‖d‖² − min_t ⟨g_t, d⟩, the duality gap in the Gramian's own unit.

    It bounds the direction: ‖d − d*‖ ≤ √gap. Arguments and result as in `kkt`.
    """
    _, excess, _ = _excess(matrix, weights)
    return _largest(excess, jnp.ones_like(excess), active)


def _excess(
    matrix: jax.Array, weights: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """‖g_t‖ (T,), ‖d‖² − ⟨g_t, d⟩ (T,) and S₁ ()."""
    norms = jnp.sqrt(jnp.maximum(jnp.diagonal(matrix), 0))
    along = matvec(matrix, weights)
    return norms, dot(weights, along) - along, dot(weights, norms)


def _largest(excess: jax.Array, scale: jax.Array, active: jax.Array | None) -> jax.Array:
    counted = scale > 0 if active is None else (scale > 0) & active
    ratio = excess / jnp.where(counted, scale, jnp.ones_like(scale))
    return jnp.max(jnp.where(counted | jnp.isnan(ratio), ratio, jnp.zeros_like(ratio)), initial=0)


def matvec(matrix: jax.Array, vector: jax.Array) -> jax.Array:
    """matrix (T, T) times vector (T,) at full precision on every backend."""
    if vector.size <= SMALL:
        return jnp.sum(matrix * vector[None, :], axis=1)
    return jnp.matmul(matrix, vector, precision=lax.Precision.HIGHEST)


def dot(left: jax.Array, right: jax.Array) -> jax.Array:
    """⟨left, right⟩ of two (T,) vectors at full precision on every backend."""
    return jnp.dot(left, right, precision=lax.Precision.HIGHEST)
