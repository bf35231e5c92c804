"""Sums of products that neither overflow nor lose digits: what a Gramian is made of."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

# Columns of one leaf that enter one matrix product; partial products are added
# with a two-sum, so the error does not grow with the number of parameters.
_CHUNK = 32_768
# From so many entries on, a further reading of a leaf costs more than the choice without it.
_LARGE = 2**18


# The exponent that products summed over all columns may reach: as high as is safe, so that
# what underflows is below the rounding of any row that counts.
_HEADROOM = {jnp.dtype("float32"): 112, jnp.dtype("float64"): 960}

# The exponent of a leaf of zeros: below all others, so that it never decides the common one.
ZERO_LEAF = -(2**15)


def select(leaf: jax.Array, active: jax.Array | None) -> jax.Array:
    if active is None:
        return leaf
    mask = lax.broadcast_in_dim(active, leaf.shape, (0,))
    return jnp.where(mask, leaf, jnp.zeros_like(leaf))


def real_parts(leaf: jax.Array, active: jax.Array | None) -> list[jax.Array]:
    if leaf.dtype == jax.dtypes.float0 or leaf.size == 0:
        return []
    leaf = select(jnp.asarray(leaf), active)
    return [leaf.real, leaf.imag] if jnp.iscomplexobj(leaf) else [leaf]


def accumulation_dtype(*dtypes: Any) -> Any:
    """float64 when one of the dtypes is as wide, float32 otherwise."""
    # Not promote_types: strict promotion has no path from bfloat16 to float32.
    return jnp.float64 if any(jnp.finfo(d).bits == 64 for d in dtypes) else jnp.float32


def safe_exponent(peak: jax.Array) -> jax.Array:
    """e with peak · 2^-e in [1/2, 1), clamped so that 2^-e is normal; 0 for 0, Inf, NaN."""
    limit = jnp.finfo(peak.dtype).maxexp - 2
    exponent = jnp.frexp(peak)[1].astype(jnp.int32)
    exponent = jnp.clip(exponent, -limit, limit)
    return jnp.where(jnp.isfinite(peak) & (peak > 0), exponent, jnp.zeros_like(exponent))


def leaf_share(leaf: jax.Array, dtype: Any, headroom: int) -> "Share":
    """What one leaf (T, *shape) adds to the Gramian, see `Share`."""
    scale, exponent = _scale(jnp.max(jnp.abs(leaf)).astype(dtype), headroom)
    return _products(leaf, scale), exponent


def share_read_once(
    leaf: jax.Array, dtype: Any, headroom: int, active: jax.Array | None
) -> "Share":
    """`leaf_share`; on CPU a large leaf is not read for its scale before the products are formed.

    They are scaled instead, where their diagonal shows that none of them is lost. Rows of
    inactive tasks are zero.
    """

    def first(leaf):
        return leaf_share(leaf, dtype, headroom)

    def after(leaf):
        high, low = _products(leaf, jnp.ones((), dtype))
        # Off the diagonal |M_st| ≤ √(M_ss M_tt): products that underflow, one a column at most,
        # are below its rounding, and no partial sum overflows. NaN and zero rows are unsafe.
        info, diagonal = jnp.finfo(dtype), jnp.diagonal(high)
        least = info.tiny / info.eps * (leaf.size // leaf.shape[0])
        safe = (diagonal >= least) & (diagonal <= info.max / 4)
        safe = jnp.all(safe if active is None else safe | ~active)
        scale, exponent = _scale(jnp.sqrt(jnp.max(diagonal)), headroom)
        scaled = (high * scale * scale, low * scale * scale), exponent
        return lax.cond(safe, lambda leaf: scaled, first, leaf)

    if leaf.size < _LARGE or may_be_sharded(leaf):
        return first(leaf)
    return lax.platform_dependent(leaf, cpu=after, default=first)


def share_of_outer(
    factors: jax.Array, seeds: jax.Array, active: jax.Array | None, dtype: Any, headroom: int
) -> "Share":
    """That of the rows factors_t ⊗ seeds_t: ⟨factors_s, factors_t⟩ ⟨seeds_s, seeds_t⟩.

    Args:
      factors: (T, k).
      seeds: (T, n).
    """
    factors, seeds = (select(x, active).astype(dtype) for x in (factors, seeds))
    # With factors of order one, a seed is as long as its row, and is in range where that is.
    exponent = safe_exponent(jnp.max(jnp.abs(factors), axis=1, keepdims=True))
    factors, seeds = jnp.ldexp(factors, -exponent), jnp.ldexp(seeds, exponent)
    products = _outer(factors, jnp.ones((), dtype))
    (high, low), scale = leaf_share(seeds, dtype, headroom)
    return (products * high, products * low), scale


def _scale(peak: jax.Array, headroom: int) -> tuple[jax.Array, jax.Array]:
    """A normal 2^-e that brings the peak to 2^headroom, and e."""
    least = headroom + 2 - jnp.finfo(peak.dtype).maxexp
    exponent = jnp.maximum(safe_exponent(peak), least) - headroom
    scale = jnp.ldexp(jnp.ones_like(peak), -exponent)
    return scale, jnp.where(peak == 0, ZERO_LEAF, exponent)


# What some columns of the rows add to a Gramian: (high + low) · 4^exponent.
Share = tuple[tuple[jax.Array, jax.Array], jax.Array]


def no_share(num_tasks: int, dtype: Any) -> Share:
    """Of no column."""
    zero = jnp.zeros((num_tasks, num_tasks), dtype)
    return (zero, zero), jnp.full((), ZERO_LEAF, jnp.int32)


def add_shares(one: Share, other: Share) -> Share:
    """That of both sets of columns: each had its own exponent, the sum has the larger one."""
    exponent = jnp.maximum(one[1], other[1])

    def scaled(share: Share) -> tuple[jax.Array, jax.Array]:
        (high, low), own = share
        scale = jnp.ldexp(jnp.ones((), high.dtype), own - exponent)
        return high * scale * scale, low * scale * scale

    return two_sum(scaled(one), scaled(other)), exponent


def headroom(num_columns: int, dtype: Any) -> int:
    """How much larger than one the rows may be scaled, for products summed over so many columns."""
    return max(0, (_HEADROOM[jnp.dtype(dtype)] - num_columns.bit_length()) // 2)


def may_be_sharded(leaf: jax.Array) -> bool:
    """Whether the array is traced for a mesh of several devices."""
    mesh = jax.typeof(leaf).sharding.mesh
    return not mesh.empty and mesh.size > 1


def _products(leaf: jax.Array, scale: jax.Array) -> tuple[jax.Array, jax.Array]:
    if may_be_sharded(leaf):
        # Flattening the parameter axes would make XLA gather a sharded one.
        trailing = tuple(range(1, leaf.ndim))
        scaled = leaf.astype(scale.dtype) * scale
        explicit = jax.typeof(leaf).sharding.mesh.explicit_axes
        out = jax.sharding.PartitionSpec(None, None) if explicit else None
        product = jnp.tensordot(
            scaled, scaled, axes=(trailing, trailing), precision="highest", out_sharding=out
        )
        return product, jnp.zeros_like(product)
    flat = leaf.reshape(leaf.shape[0], -1)
    if flat.shape[1] < 2 * _CHUNK:
        return _whole(flat, scale)
    # One thread's long float32 sum loses digits; an accelerator sums in tiles anyway.
    return lax.platform_dependent(flat, scale, cpu=_chunked, default=_whole)


def _whole(flat: jax.Array, scale: jax.Array) -> tuple[jax.Array, jax.Array]:
    product = _outer(flat, scale)
    return product, jnp.zeros_like(product)


@jax.jit
def _chunked(flat: jax.Array, scale: jax.Array) -> tuple[jax.Array, jax.Array]:
    chunks, rest = divmod(flat.shape[1], _CHUNK)

    def body(i, total):
        chunk = lax.dynamic_slice_in_dim(flat, i * _CHUNK, _CHUNK, axis=1)
        return two_sum(total, _whole(chunk, scale))

    zero = jnp.zeros((flat.shape[0],) * 2, scale.dtype)
    total = lax.fori_loop(0, chunks, body, (zero, zero))
    return two_sum(total, _whole(flat[:, chunks * _CHUNK :], scale)) if rest else total


def _outer(flat: jax.Array, scale: jax.Array) -> jax.Array:
    scaled = flat.astype(scale.dtype) * scale
    return lax.dot_general(scaled, scaled, (((1,), (1,)), ((), ())), precision="highest")


def two_sum(
    total: tuple[jax.Array, jax.Array], term: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """(high, low) + (high, low) by Knuth's two-sum: high's rounding error goes to low."""
    high = total[0] + term[0]
    virtual = high - total[0]
    error = (total[0] - (high - virtual)) + (term[0] - virtual)
    return high, total[1] + term[1] + error
