"""GradDrop: one sign in every coordinate, at random."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mgda_jax.tasks import task_vector
from mgda_jax.weighting.arguments import check_each
from mgda_jax.weighting.base import RowRule
from mgda_jax.weighting.division import one_for_zero
from mgda_jax.weighting.keys import check_seed, draw_key, new_key
from mgda_jax.weighting.origin import rule
from mgda_jax.weighting.rows import column, combine_leaves, row_mask

PyTree = Any


class GradDropState(NamedTuple):
    """State of `graddrop`.

    Attributes:
      key: data of the PRNG key of the next draw.
    """

    key: jax.Array


@rule
def graddrop(*, leak: float | jax.Array | PyTree = 0.0, seed: int = 0) -> RowRule:
    """GradDrop: in every coordinate the positive parts or the negative ones, at random.

    With P = ½(1 + Σ_t g_t / Σ_t |g_t|) and U uniform on (0, 1), both per coordinate:
    d = Σ_t (ℓ_t + (1 − ℓ_t) m_t) g_t, m_t = [P > U] where g_t > 0 and [P < U] where
    g_t < 0. The mean of d over the draws is Σ g_t P where positive, Σ g_t (1 − P)
    where negative. The paper draws per coordinate of a layer of activations; here
    it is a coordinate of whatever the rows are.

    Args:
      leak: ℓ in [0, 1], a scalar or one per task ((T,) array, sequence or dict of
        named scalars): the part of a gradient that always passes.
      seed: of the state's own key; the `key` argument of update replaces the draw.

    Returns:
      RowRule of scope "shared".

    Raises:
      ValueError: a concrete leak outside [0, 1], a seed that is no int; at update, a leak
        of another length.

    Examples:
      >>> import jax.numpy as jnp
      >>> rows = jnp.array([[1.0, 2.0, -1.0], [3.0, 1.0, -4.0]])
      >>> rule = graddrop()
      >>> rule.update(rule.init(jnp.zeros(3), 2), rows)[0]  # no signs differ
      Array([ 4.,  3., -5.], dtype=float32)

    References:
      Chen et al., "Just Pick a Sign: Optimizing Deep Multitask Models with Gradient
      Sign Dropout", NeurIPS 2020, Algorithm 1.
    """
    check_seed(seed, "graddrop")
    check_each(leak, lambda x: (x >= 0) & (x <= 1), "graddrop: leak must be in [0, 1]")

    def init(params: PyTree, num_tasks: int) -> GradDropState:
        del params, num_tasks
        return GradDropState(new_key(seed))

    def update(state, rows, *, key=None, active=None, **_):
        next_key, key = draw_key(state.key, key)
        mask = row_mask(rows, active)
        passing = leak
        if isinstance(leak, (dict, list, tuple)) or jnp.ndim(leak) == 1:
            passing = task_vector(leak, len(mask), "graddrop: leak")

        def combine(leaf, mask, index):
            del mask
            # The least positive number and not zero, or a coordinate without conflict could drop.
            draw = jax.random.uniform(
                jax.random.fold_in(key, index),
                leaf.shape[1:],
                leaf.dtype,
                minval=jnp.finfo(leaf.dtype).tiny,
            )
            total = jnp.sum(jnp.abs(leaf), axis=0)
            ratio = jnp.sum(leaf, axis=0) / one_for_zero(total)
            purity = (1 + ratio) / 2
            kept = jnp.where(leaf > 0, (purity > draw)[None], (purity < draw)[None])
            part = jnp.asarray(passing, leaf.dtype)
            part = column(part, leaf) if part.ndim else part
            return jnp.sum((part + (1 - part) * kept.astype(leaf.dtype)) * leaf, axis=0)

        return combine_leaves(rows, mask, combine), GradDropState(next_key)

    return RowRule(init, update)
