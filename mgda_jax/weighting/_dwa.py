"""Dynamic weight averaging: weights from the losses' rates of descent."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mgda_jax.tasks import check_hyperparameter
from mgda_jax.weighting.arguments import check_steps_per_epoch
from mgda_jax.weighting.base import Weighting
from mgda_jax.weighting.losses import active_losses, count, softmax, valid_losses
from mgda_jax.weighting.origin import rule


class DWAState(NamedTuple):
    """State of `dwa`.

    Attributes:
      step: () int32, updates in the current epoch.
      mean: (T,) mean loss of the current epoch so far.
      counts: (T,) int32, how many losses are in that mean.
      last: (T,) mean loss of the task's last epoch.
      before_last: (T,) mean loss of the epoch before.
      epochs: (T,) int32, epochs in which the task had a loss, up to 2.
    """

    step: jax.Array
    mean: jax.Array
    counts: jax.Array
    last: jax.Array
    before_last: jax.Array
    epochs: jax.Array


@rule
def dwa(*, steps_per_epoch: int, temperature: float = 2.0) -> Weighting:
    """Dynamic weight averaging: more weight for the tasks whose losses fall slowly.

    w = T softmax(r / τ) with r_t = L̄_t(k−1) / L̄_t(k−2), the mean losses of the last two
    epochs; w = 1 during the first two. A task without two epochs of losses has r = 1.
    Losses must not be negative: NaN weights where one is.

    Args:
      steps_per_epoch: updates in an epoch. (The Nash-MTL benchmark compares two
        windows of 25 steps instead of epochs.)
      temperature: τ > 0; larger is more even.

    Returns:
      Weighting of scope "all" that reads "losses".

    Raises:
      ValueError: an argument out of its range.

    Examples:
      >>> import jax.numpy as jnp
      >>> rule = dwa(steps_per_epoch=1)
      >>> state = rule.init(2)
      >>> for losses in ([4.0, 1.0], [2.0, 1.0]):
      ...     _, state = rule.update(state, losses=jnp.array(losses))
      >>> rule.update(state, losses=jnp.array([1.0, 1.0]))[0].round(4)
      Array([0.8756, 1.1244], dtype=float32)

    References:
      Liu, Johns and Davison, "End-to-End Multi-Task Learning with Attention",
      CVPR 2019.
    """
    check_steps_per_epoch(steps_per_epoch, "dwa")
    check_hyperparameter(temperature, lambda x: x > 0, "dwa: temperature must be positive")

    def init(num_tasks: int) -> DWAState:
        floats = (jnp.zeros(num_tasks) for _ in range(3))
        ints = (jnp.zeros(num_tasks, jnp.int32) for _ in range(2))
        mean, last, before_last = floats
        counts, epochs = ints
        return DWAState(jnp.zeros((), jnp.int32), mean, counts, last, before_last, epochs)

    def update(state, *, losses, active=None, **_):
        values, mask = active_losses(losses, active)
        known = (state.epochs == 2) & (state.before_last > 0)
        ratio = state.last / jnp.where(known, state.before_last, jnp.ones_like(values))
        ratio = jnp.where(known, ratio, jnp.ones_like(ratio))
        ratio = jnp.minimum(ratio, jnp.finfo(ratio.dtype).max)
        logits = ratio / jnp.asarray(temperature, ratio.dtype)
        weights = count(mask, values.dtype) * softmax(logits, mask)
        weights = jnp.where(valid_losses(values, mask), weights, jnp.nan)

        counts = jnp.where(mask, state.counts + 1, state.counts)
        change = (values - state.mean) / jnp.maximum(counts, 1).astype(values.dtype)
        mean = jnp.where(mask, state.mean + change, state.mean)
        step = state.step + 1
        ends = step >= jnp.asarray(steps_per_epoch, jnp.int32)
        moves = ends & (counts > 0)
        return weights, DWAState(
            step=jnp.where(ends, jnp.zeros_like(step), step),
            mean=jnp.where(ends, jnp.zeros_like(mean), mean),
            counts=jnp.where(ends, jnp.zeros_like(counts), counts),
            last=jnp.where(moves, mean, state.last),
            before_last=jnp.where(moves, state.last, state.before_last),
            epochs=jnp.where(moves, jnp.minimum(state.epochs + 1, 2), state.epochs),
        )

    return Weighting(init, update, frozenset({"losses"}), "all")
