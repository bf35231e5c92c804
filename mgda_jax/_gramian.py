"""Per-task gradients with a leading task axis → Gramian, and back to one update.

Precision, scale and sharding are handled here and nowhere else.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mgda_jax.products import (
    ZERO_LEAF,
    Share,
    accumulation_dtype,
    add_shares,
    headroom,
    no_share,
    real_parts,
    safe_exponent,
    select,
    share_read_once,
)
from mgda_jax.tasks import path_name

PyTree = Any


class Gramian(NamedTuple):
    """M = G Gᵀ of rows scaled by one exact power of two, so that the largest is of order one.

    The true Gramian is matrix · 4^exponent, the true norm of row t is
    √matrix[t, t] · 2^exponent. A row shorter than √(tiny/eps) ≈ 3e-16 (float64: 1e-146)
    times the longest, give or take a factor of two, is a zero row: products of two such
    rows would have lost their digits.

    Attributes:
      matrix: (T, T), float32 or float64.
      exponent: () int32.
    """

    matrix: jax.Array
    exponent: jax.Array


def gramian(rows: PyTree, *, active: jax.Array | None = None) -> Gramian:
    """The Gramian ⟨g_s, g_t⟩ of per-task gradients, accumulated in at least float32.

    M_st = Σ_leaves ⟨g_s, g_t⟩ at precision "highest". Rows are first scaled by
    one power of two, which is exact, so gradients whose longest row is anywhere from
    1e-30 to 1e+30 work in float32. The scale is common to all rows: one that is 1e-15
    times as long as the longest still counts with all its digits, one of less than
    3e-16 is a zero row, and so is one of denormal entries. Where a leaf may be sharded
    over a mesh only (T, T) is reduced and no parameter axis is gathered. Complex leaves
    count as pairs of reals.

    Args:
      rows: pytree whose every leaf is (T, *shape), any floating or complex
        dtype; float0 leaves (gradients of integers) and empty leaves add nothing.
      active: (T,) bool or None; rows of inactive tasks are replaced by zeros
        (selected, never multiplied: they may hold NaN).

    Returns:
      Gramian with matrix (T, T) in float32, or float64 when a leaf has it.

    Raises:
      ValueError: no leaf, a leaf without a leading axis or with another length
        of it, an integer leaf; each names the leaf's path.

    Examples:
      >>> import jax.numpy as jnp
      >>> m = gramian({"w": jnp.array([[3.0, 4.0], [4.0, -3.0]])})
      >>> norms(m)
      Array([5., 5.], dtype=float32)
    """
    num_tasks = check_rows(rows)
    leaves = [part for leaf in jax.tree.leaves(rows) for part in real_parts(leaf, active)]
    dtype = accumulation_dtype(*(leaf.dtype for leaf in leaves))
    # Each leaf has its own exponent, so that a leaf is done with, and its memory free, before
    # the next one is looked at.
    room = headroom(sum(leaf.size for leaf in leaves) // num_tasks, dtype)
    shares = [share_read_once(leaf, dtype, room, active) for leaf in leaves]
    return of_share(functools.reduce(add_shares, shares, no_share(num_tasks, dtype)))


def of_share(share: Share) -> Gramian:
    """The Gramian from what all columns add to it."""
    (high, low), exponent = share
    exponent = jnp.where(exponent == ZERO_LEAF, jnp.zeros_like(exponent), exponent)
    matrix = high + low
    return normalize(Gramian((matrix + matrix.T) / 2, exponent))


def weighted_sum(rows: PyTree, weights: jax.Array, *, active: jax.Array | None = None) -> PyTree:
    """The combined gradient Σ_t w_t g_t, in the shapes and dtypes of the parameters.

    Args:
      rows: pytree whose every leaf is (T, *shape).
      weights: (T,).
      active: (T,) bool or None; inactive rows are left out even where they are NaN.

    Returns:
      Pytree of leaves `shape`, each in its leaf's dtype (summed in at least float32).

    Examples:
      >>> import jax.numpy as jnp
      >>> weighted_sum(jnp.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]]), jnp.array([0.5, 0.5]))
      Array([1., 1., 1.], dtype=float32)
    """

    def combine(leaf):
        if leaf.dtype == jax.dtypes.float0:
            return np.zeros(leaf.shape[1:], leaf.dtype)
        dtype = accumulation_dtype(leaf.dtype)
        if jnp.iscomplexobj(leaf):
            dtype = jnp.complex128 if dtype == jnp.float64 else jnp.complex64
        selected = select(leaf, active).astype(dtype)
        total = jnp.tensordot(weights.astype(dtype), selected, axes=1, precision="highest")
        return total.astype(leaf.dtype)

    return jax.tree.map(combine, rows)


def norms(gramian: Gramian) -> jax.Array:
    """Row norms ‖g_t‖ = √M_tt · 2^exponent, (T,); NaN where the diagonal is.

    Args:
      gramian: `Gramian`.

    Returns:
      Array (T,) in the dtype of the matrix.

    Examples:
      >>> import jax.numpy as jnp
      >>> norms(as_gramian(jnp.array([[9.0, 0.0], [0.0, 16.0]])))
      Array([3., 4.], dtype=float32)
    """
    diagonal = jnp.maximum(jnp.diagonal(gramian.matrix), 0)
    return jnp.ldexp(jnp.sqrt(diagonal), gramian.exponent)


def as_gramian(gramian: Gramian | jax.typing.ArrayLike) -> Gramian:
    """A Gramian from a Gramian or from a raw (T, T) array of inner products.

    A raw float32 array is safe for gradient entries in 1e-15…1e17 only: outside,
    its own entries are already zero or Inf.

    Args:
      gramian: `Gramian`, returned as it is, or array (T, T).

    Returns:
      Gramian in at least float32.

    Raises:
      ValueError: when the array is not square or not real floating point.

    Examples:
      >>> import jax.numpy as jnp
      >>> as_gramian(jnp.array([[4.0, 0.0], [0.0, 1.0]])).exponent
      Array(2, dtype=int32)
    """
    if isinstance(gramian, Gramian):
        return gramian
    matrix = jnp.asarray(gramian)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.shape[0] == 0:
        raise ValueError(
            f"gramian: expected a Gramian or an array (T, T), got shape {matrix.shape}"
        )
    if not jnp.issubdtype(matrix.dtype, jnp.floating):
        raise ValueError(f"gramian: expected a floating dtype, got {matrix.dtype}")
    matrix = matrix.astype(accumulation_dtype(matrix.dtype))
    return normalize(Gramian(matrix, jnp.zeros((), jnp.int32)))


def normalize(gramian: Gramian) -> Gramian:
    """The same Gramian with its largest diagonal entry in [1/4, 1): an exact change of exponent.

    A row whose diagonal entry is then below tiny/eps is a zero row throughout.
    """
    peak = jnp.sqrt(jnp.max(jnp.diagonal(gramian.matrix)))
    shift = safe_exponent(peak)
    scale = jnp.ldexp(jnp.ones((), peak.dtype), -shift)
    # Twice by 2^-shift and not once by 4^-shift, which need not be representable.
    matrix = gramian.matrix * scale * scale
    diagonal, info = jnp.diagonal(matrix), jnp.finfo(matrix.dtype)
    lost = (diagonal >= 0) & (diagonal < info.tiny / info.eps)
    lost = (lost[:, None] | lost[None, :]) & jnp.isfinite(matrix)
    return Gramian(jnp.where(lost, jnp.zeros_like(matrix), matrix), gramian.exponent + shift)


def rescale(gramian: Gramian, factor: jax.Array) -> Gramian:
    """The Gramian of factor · g_t for a positive scalar factor of any magnitude."""
    mantissa, exponent = jnp.frexp(factor.astype(gramian.matrix.dtype))
    matrix = gramian.matrix * mantissa * mantissa
    return Gramian(matrix, gramian.exponent + exponent.astype(jnp.int32))


def check_rows(rows: PyTree, num_tasks: int | None = None, name: str = "gradients") -> int:
    """T, after checking that every leaf is (T, ...) and floating; names the path otherwise."""
    flat = jax.tree_util.tree_flatten_with_path(rows)[0]
    if not flat and num_tasks is None:
        raise ValueError(f"{name}: expected at least one leaf of shape (num_tasks, ...), got none")
    for path, leaf in flat:
        where = f"{name} at '{path_name(path)}'" if path else name
        if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
            raise ValueError(
                f"{where}: expected an array (num_tasks, ...), got {type(leaf).__name__}"
            )
        num_tasks = leaf.shape[0] if num_tasks is None and leaf.ndim else num_tasks
        if leaf.ndim == 0 or leaf.shape[0] != num_tasks:
            expected = (
                "a leading task axis"
                if num_tasks is None
                else f"a leading task axis of {num_tasks}"
            )
            raise ValueError(f"{where}: expected {expected}, got shape {leaf.shape}")
        if not (jnp.issubdtype(leaf.dtype, jnp.inexact) or leaf.dtype == jax.dtypes.float0):
            raise ValueError(f"{where}: expected a floating dtype, got {leaf.dtype}")
    assert num_tasks is not None
    return num_tasks
