"""Robust means of single coordinates: trimmed mean and median."""

from typing import Any

import jax.numpy as jnp
import optax

from mgda_jax.weighting.base import RowRule
from mgda_jax.weighting.rows import combine_leaves, row_mask

PyTree = Any


def trimmed_mean(*, num_trimmed: int = 1) -> RowRule:
    """The mean of every coordinate without its b largest and b smallest entries.

    T counts the active tasks; where T ≤ 2b it is the coordinate median. A NaN or Inf
    entry makes its coordinate NaN, it is not trimmed away.

    Args:
      num_trimmed: b ≥ 0, static; 0 is the mean.

    Returns:
      RowRule of scope "shared".

    Raises:
      ValueError: b is no int ≥ 0.

    Examples:
      >>> import jax.numpy as jnp
      >>> rows = jnp.array([[1.0, 5.0], [2.0, -90.0], [60.0, 6.0]])
      >>> rule = trimmed_mean(num_trimmed=1)
      >>> rule.update(rule.init(jnp.zeros(2), 3), rows)[0]
      Array([2., 5.], dtype=float32)

    References:
      Yin et al., "Byzantine-Robust Distributed Learning: Towards Optimal Statistical
      Rates", ICML 2018, Definition 2.
    """
    if isinstance(num_trimmed, bool) or not isinstance(num_trimmed, int) or num_trimmed < 0:
        raise ValueError(f"trimmed_mean: num_trimmed must be an int >= 0, got {num_trimmed!r}")
    return _middle_mean(lambda present: jnp.minimum(num_trimmed, (present - 1) // 2))


def coordinate_median() -> RowRule:
    """The median of every coordinate: the mean of the two middle entries when T is even.

    A NaN or Inf entry makes its coordinate NaN.

    Returns:
      RowRule of scope "shared".

    Examples:
      >>> import jax.numpy as jnp
      >>> rows = jnp.array([[1.0, 5.0], [2.0, -90.0], [60.0, 6.0], [4.0, 7.0]])
      >>> rule = coordinate_median()
      >>> rule.update(rule.init(jnp.zeros(2), 4), rows)[0]
      Array([3. , 5.5], dtype=float32)

    References:
      Yin et al., "Byzantine-Robust Distributed Learning: Towards Optimal Statistical
      Rates", ICML 2018, Definition 1.
    """
    return _middle_mean(lambda present: (present - 1) // 2)


def _middle_mean(trim) -> RowRule:
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
