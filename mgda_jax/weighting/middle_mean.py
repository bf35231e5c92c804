"""What the trimmed mean and the coordinate median share: a mean of ordered entries."""

from typing import Any

import jax.numpy as jnp
import optax

from mgda_jax.weighting.base import RowRule
from mgda_jax.weighting.rows import combine_leaves, row_mask

PyTree = Any


def middle_mean(trim) -> RowRule:
    """The mean of the sorted entries without trim(T) at either end."""

    def init(params: PyTree, num_tasks: int) -> optax.EmptyState:
        del params, num_tasks
        return optax.EmptyState()

    def update(state, rows, *, active=None, **_):
        mask = row_mask(rows, active)
        present = jnp.sum(mask)
        first = jnp.maximum(trim(present), 0)
        place = jnp.arange(len(mask))
        middle = (place >= first) & (place < present - first)

        def combine(leaf, mask, index):
            del index
            # Inactive entries go to the end.
            ordered = jnp.sort(jnp.where(mask, leaf, jnp.inf), axis=0)
            taken = middle.reshape(mask.shape)
            total = jnp.sum(jnp.where(taken, ordered, jnp.zeros_like(ordered)), axis=0)
            return total / jnp.maximum(jnp.sum(middle), 1).astype(leaf.dtype)

        return combine_leaves(rows, mask, combine), state

    return RowRule(init, update)
