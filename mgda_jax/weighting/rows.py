"""What the row rules share: leaves in one dtype, rows selected, norms that do not overflow."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mgda_jax._gramian import check_rows, weighted_sum
from mgda_jax.products import accumulation_dtype
from mgda_jax.weighting.arguments import active_mask
from mgda_jax.weighting.division import one_for_zero

PyTree = Any


def row_mask(rows: PyTree, active: jax.Array | None) -> jax.Array:
    """(T,) bool, all true where active is None."""
    return active_mask(active, check_rows(rows))


def column(vector: jax.Array, leaf: jax.Array) -> jax.Array:
    """(T,) as (T, 1, …, 1), to go with a leaf (T, *shape)."""
    return vector.reshape((-1,) + (1,) * (leaf.ndim - 1))


def combine_leaves(
    rows: PyTree, mask: jax.Array, combine: Callable[[jax.Array, jax.Array, int], jax.Array]
) -> PyTree:
    """A direction computed leaf by leaf, in the shapes and dtypes of the parameters.

    Args:
      rows: pytree whose every leaf is (T, *shape).
      mask: (T,) bool.
      combine: `combine(leaf, mask, index) -> direction`, called with a real leaf (T, *shape)
        in at least float32, zero outside the mask, mask (T, 1, …, 1) and a number that
        is different for every real leaf; a complex leaf is two real ones. Where an
        active row is NaN or Inf the direction is NaN, whatever combine does.

    Returns:
      Pytree of leaves `shape`.
    """
    leaves, treedef = jax.tree.flatten(rows)

    def real(leaf, index):
        part = column(mask, leaf)
        selected = jnp.where(part, leaf, jnp.zeros_like(leaf))
        selected = selected.astype(accumulation_dtype(leaf.dtype))
        direction = combine(selected, part, index)
        return jnp.where(jnp.all(jnp.isfinite(selected), axis=0), direction, jnp.nan)

    def whole(index, leaf):
        if leaf.dtype == jax.dtypes.float0:
            return np.zeros(leaf.shape[1:], leaf.dtype)
        if jnp.iscomplexobj(leaf):
            direction = jax.lax.complex(real(leaf.real, 2 * index), real(leaf.imag, 2 * index + 1))
        else:
            direction = real(leaf, 2 * index)
        return direction.astype(leaf.dtype)

    return jax.tree.unflatten(treedef, [whole(i, leaf) for i, leaf in enumerate(leaves)])


def row_norms(rows: PyTree, mask: jax.Array) -> jax.Array:
    """‖g_t‖, (T,), zero outside the mask; safe for entries from 1e-38 to 1e38 in float32."""
    leaves = [jnp.abs(leaf) for leaf in jax.tree.leaves(rows) if leaf.dtype != jax.dtypes.float0]
    leaves = [jnp.where(column(mask, leaf), leaf, jnp.zeros_like(leaf)) for leaf in leaves]
    dtype = accumulation_dtype(*(leaf.dtype for leaf in leaves))
    peak = jnp.zeros(mask.shape, dtype)
    for leaf in leaves:
        axes = tuple(range(1, leaf.ndim))
        peak = jnp.maximum(peak, jnp.max(leaf, axis=axes, initial=0).astype(dtype))
    safe = one_for_zero(peak)
    total = jnp.zeros(mask.shape, dtype)
    for leaf in leaves:
        scaled = leaf.astype(dtype) / column(safe, leaf)
        total = total + jnp.sum(scaled**2, axis=tuple(range(1, leaf.ndim)))
    return peak * jnp.sqrt(total)


def zero_rows(params: PyTree, num_tasks: int) -> PyTree:
    """Zeros of the rows' shapes in the default float (or complex) dtype; nothing for integers."""

    def zeros(param):
        if not jnp.issubdtype(param.dtype, jnp.inexact):
            return jnp.zeros((num_tasks, 0))
        default = jnp.zeros(()).dtype
        if jnp.issubdtype(param.dtype, jnp.complexfloating):
            default = jnp.complex128 if default == jnp.float64 else jnp.complex64
        return jnp.zeros((num_tasks, *param.shape), default)

    return jax.tree.map(zeros, params)


def map_rows(
    function: Callable[..., jax.Array], state: PyTree, rows: PyTree, mask: jax.Array
) -> PyTree:
    """`function(state leaf, rows leaf)` in the wider dtype where active, the state elsewhere."""

    def leaf(old, row):
        if row.dtype == jax.dtypes.float0:
            return old
        # One of the two is at least float32, so this is bfloat16 → float32 or a widening.
        dtype = old.dtype if accumulation_dtype(row.dtype) == jnp.float32 else jnp.float64
        if jnp.iscomplexobj(row) and dtype == jnp.float64:
            dtype = jnp.complex128
        old = old.astype(dtype)
        return jnp.where(column(mask, old), function(old, row.astype(dtype)), old)

    return jax.tree.map(leaf, state, rows)


def direction_like(rows: PyTree, source: PyTree, weights: jax.Array, mask: jax.Array) -> PyTree:
    """Σ_t w_t y_t of another set of rows y, in the dtypes of the parameters' gradients."""

    def cast(row, total):
        if row.dtype == jax.dtypes.float0:
            return np.zeros(row.shape[1:], row.dtype)
        return total.astype(row.dtype)

    return jax.tree.map(cast, rows, weighted_sum(source, weights, active=mask))


def decayed(rate: float | jax.Array, decay: float | jax.Array, step: jax.Array, dtype):
    return jnp.asarray(rate, dtype) * step.astype(dtype) ** -jnp.asarray(decay, dtype)
