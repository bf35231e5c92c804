"""Exact MGDA without the T gradients: their Gramian layer by layer, then one more pullback."""

import dataclasses

import jax
import jax.numpy as jnp

from mgda_jax._equations import linear_equations
from mgda_jax._gramian import weighted_sum
from mgda_jax._layerwise import layerwise_gramian
from mgda_jax.mapped_axis import mean_over_axis
from mgda_jax.oracle._modes import Encoder, Mode, on_float_leaves
from mgda_jax.weighting.base import RowRule


@dataclasses.dataclass(frozen=True)
class Lean(Mode):
    """MGDA that never holds the T gradients: the same numbers as `Exact` up to rounding.

    The Gramian is summed up layer by layer in the backward pass, and the combination takes
    one more pullback. Instead of T gradients of the parameters the T gradients of the
    activations of one layer are held, so it saves memory where a model has many layers, or
    more parameters in a layer than a batch has activations there; parameters that layers
    share, or that `lax.scan` runs over, count as one layer. It is no choice for convolutions of
    few weights, where it takes more of both. On CPU it is faster than `Exact` where dense layers
    have more inputs than the batch has examples. For every `Weighting`.

    Examples:
      >>> Lean()
      Lean()
    """

    def check_rule(self, weighting):
        if isinstance(weighting, RowRule):
            raise ValueError(
                "mode: a RowRule needs the rows themselves, expected 'exact', got Lean()"
            )

    def at(self, encode, shared, batch, *, num_tasks, has_aux, axis_name):
        leaves, treedef = jax.tree.flatten(shared)
        forward, join, rows = on_float_leaves(encode, treedef, has_aux)
        floats, push, (others, aux) = jax.linearize(
            lambda p: forward(p, batch), leaves, has_aux=True
        )
        z = join(floats, others)
        zs = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (num_tasks, *jnp.shape(leaf))), z)

        def whole(dzs, active):
            linear = linear_equations(lambda *leaves: push(list(leaves)), *leaves)
            return layerwise_gramian(linear, dzs, active, axis_name)

        def combine(dzs, _, weights, active):
            dz = weighted_sum(rows(dzs), weights, active=active)
            (gradient,) = jax.linear_transpose(push, leaves)(dz)
            return jax.tree.unflatten(treedef, mean_over_axis(gradient, axis_name))

        return Encoder(zs, aux, rows, whole, combine)
