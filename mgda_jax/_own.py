"""The gradient of what one task owns: times its weight, zero where the task is inactive."""

import jax
import jax.numpy as jnp


def scale_own(
    leaf: jax.Array, task: int | None, weights: jax.Array | None, active: jax.Array | None
) -> jax.Array:
    """w_t · leaf, or zero: selected, since an inactive task's gradient may hold NaN.

    Args:
      leaf: of task t, any shape; of all tasks, (T, ...), with task None.
      task: t, or None.
      weights: (T,), or None for as it is.
      active: (T,) bool, or None for all.
    """
    if leaf.dtype == jax.dtypes.float0:
        return leaf

    def spread(vector: jax.Array) -> jax.Array:
        entry = vector if task is None else vector[task]
        return entry.reshape(entry.shape + (1,) * (leaf.ndim - entry.ndim))

    if weights is not None:
        leaf = leaf * spread(weights).astype(leaf.dtype)
    return leaf if active is None else jnp.where(spread(active), leaf, jnp.zeros_like(leaf))
