"""Exact MGDA where every example is a task: their Gramian layer by layer, then one pullback."""

import dataclasses

import jax
import jax.numpy as jnp

from mgda_jax._equations import linear_equations
from mgda_jax._layerwise import layerwise_gramian
from mgda_jax.oracle._modes import Encoder, Mode, on_float_leaves
from mgda_jax.products import accumulation_dtype, select
from mgda_jax.tasks import path_name
from mgda_jax.weighting.base import RowRule

_EXAMPLES = "mgda_jax examples"  # the mapped axis


@dataclasses.dataclass(frozen=True)
class PerExample(Mode):
    """MGDA on examples: loss t is that of example t, and no T gradients are held.

    encode is a function of one example, `encode(shared, example) -> z`, and is mapped over
    the batch, whose leaves are (T, ...): T is the batch size, and nothing that ties examples
    together (BatchNorm's statistics) can be in it. zs is the batch of the z, aux of the aux;
    loss t reads zs[t], and there are no parameters of its own: give `()`. The Gramian is
    summed up layer by layer. Of a dense layer it is the product, entry by entry, of the
    Gramians of inputs and of output gradients, so that T gradients are formed of other
    layers only, one layer's at a time. One pullback takes the combination to θ. For every
    `Weighting`; without axis_name, as a task is on one device.

    Examples:
      >>> PerExample()
      PerExample()
    """

    def check_rule(self, weighting):
        if isinstance(weighting, RowRule):
            raise ValueError(
                "mode: a RowRule needs the rows themselves, got PerExample(); give jax.vmap of "
                "jax.grad to aggregate instead"
            )

    def at(self, encode, shared, batch, *, num_tasks, has_aux, axis_name):
        if axis_name is not None:
            raise ValueError(f"axis_name: with mode PerExample() expected None, got {axis_name!r}")
        for path, leaf in jax.tree_util.tree_flatten_with_path(batch)[0]:
            if jnp.shape(leaf)[:1] != (num_tasks,):
                raise ValueError(
                    f"batch at '{path_name(path)}': with mode PerExample() expected shape "
                    f"({num_tasks}, ...), an entry per example, got {jnp.shape(leaf)}"
                )
        leaves, treedef = jax.tree.flatten(shared)
        forward, join, rows = on_float_leaves(encode, treedef, has_aux)

        def at_batch(batch):
            return jax.vjp(lambda p: jax.vmap(forward, (None, 0))(p, batch), leaves, has_aux=True)

        floats, pull, (others, aux) = at_batch(batch)
        zs = join(floats, others)

        def gather(own):
            return jax.lax.all_gather(own, _EXAMPLES)

        def whole(dzs, active):
            def of_one(example, dz):
                _, push, _ = jax.linearize(lambda p: forward(p, example), leaves, has_aux=True)
                linear = linear_equations(lambda *leaves: push(list(leaves)), *leaves)
                seeds = [leaf[None] for leaf in dz]
                return layerwise_gramian(linear, seeds, active, None, gather)

            mapped = jax.vmap(of_one, out_axes=None, axis_name=_EXAMPLES)
            return mapped(batch, dzs)

        def combine(dzs, _, weights, active):
            pull_all = pull
            if active is not None:
                # An inactive example may hold NaN, which times zero is NaN: another stands in.
                chosen = jnp.where(active, jnp.arange(num_tasks), jnp.argmax(active))
                pull_all = at_batch(jax.tree.map(lambda leaf: leaf[chosen], batch))[1]
            (gradient,) = pull_all([_scaled(dz, weights, active) for dz in rows(dzs)])
            if active is not None:
                gradient = [jnp.where(jnp.any(active), g, jnp.zeros_like(g)) for g in gradient]
            return jax.tree.unflatten(treedef, gradient)

        return Encoder(zs, aux, rows, whole, combine)


def _scaled(dz: jax.Array, weights: jax.Array, active: jax.Array | None) -> jax.Array:
    """w_t dz_t, (T, *shape), multiplied in at least float32."""
    wide = dz.dtype if jnp.iscomplexobj(dz) else accumulation_dtype(dz.dtype)
    factor = jax.lax.broadcast_in_dim(weights.astype(wide), dz.shape, (0,))
    return (select(dz, active).astype(wide) * factor).astype(dz.dtype)
