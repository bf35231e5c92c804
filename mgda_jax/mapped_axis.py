"""A batch spread over a mapped axis: what is summed or averaged over it, and when."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mgda_jax._gramian import Gramian, normalize
from mgda_jax.products import ZERO_LEAF

PyTree = Any


def sum_over_axis(gramian: Gramian, axis_name: Any) -> Gramian:
    """The Gramian of rows whose columns are spread over a mapped axis, from each one's share."""
    peak = jnp.max(jnp.diagonal(gramian.matrix))
    own = jnp.where(peak == 0, ZERO_LEAF, gramian.exponent)
    exponent = lax.pmax(own, axis_name)
    scale = jnp.ldexp(jnp.ones((), gramian.matrix.dtype), own - exponent)
    matrix = lax.psum(gramian.matrix * scale * scale, axis_name)
    exponent = jnp.where(exponent == ZERO_LEAF, jnp.zeros_like(exponent), exponent)
    return normalize(Gramian(matrix, exponent))


def vary_like(value: jax.Array, like: jax.Array) -> jax.Array:
    """The value, marked as varying over the mapped axes that the other one varies over."""
    missing = varying_axes(like) - varying_axes(value)
    return lax.pcast(value, tuple(missing), to="varying") if missing else value


def mean_over_axis(gradients: PyTree, axis_name: Any) -> PyTree:
    """The mean over a mapped axis of what a pullback gave each device; as it is for None.

    shard_map's check_vma has summed the gradient of what does not vary already.
    """
    if axis_name is None:
        return gradients
    axes = axis_name if isinstance(axis_name, tuple) else (axis_name,)
    checked = {axis for axis in axes if varying_axes(lax.axis_index(axis))}

    def mean(leaf):
        if leaf.dtype == jax.dtypes.float0:
            return leaf
        summed = tuple(axis for axis in axes if axis in checked - varying_axes(leaf))
        rest = tuple(axis for axis in axes if axis not in summed)
        leaf = (
            leaf / np.prod([lax.axis_size(a) for a in summed]).astype(leaf.dtype)
            if summed
            else leaf
        )
        return lax.pmean(leaf, rest) if rest else leaf

    return jax.tree.map(mean, gradients)


def varying_axes(leaf: jax.Array) -> frozenset[Any]:
    """The manual axes over which JAX knows the leaf to vary: none outside shard_map's check_vma."""
    return varying_axes_of_type(jax.typeof(leaf))


def varying_axes_of_type(aval: Any) -> frozenset[Any]:
    """`varying_axes` of an array of this abstract type."""
    kind = getattr(aval, "manual_axis_type", None)  # jax < 0.10.2: aval.vma
    return frozenset(getattr(aval, "vma", ()) if kind is None else kind.varying)
