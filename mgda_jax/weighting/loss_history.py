"""Rules that watch the losses over time: dynamic weight averaging and FAMO."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mgda_jax.tasks import check_hyperparameter, stack_losses, task_vector
from mgda_jax.weighting.base import Weighting
from mgda_jax.weighting.loss_learned import LearnedState, init_learned, learn
from mgda_jax.weighting.positive import active_losses, check_steps_per_epoch, count, softmax

PyTree = Any


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


class FAMOState(NamedTuple):
    """State of `famo`.

    Attributes:
      logits: ξ (T,) and its optimiser's state.
      losses: (T,) losses of the previous update.
      active: (T,) bool, tasks that were active in the previous update.
    """

    logits: LearnedState
    losses: jax.Array
    active: jax.Array


def dwa(*, steps_per_epoch: int, temperature: float = 2.0) -> Weighting:
    """Dynamic weight averaging: more weight for the tasks whose losses fall slowly.

    w = T softmax(r / τ) with r_t = L̄_t(k−1) / L̄_t(k−2), the mean losses of the last two
    epochs; w = 1 during the first two. A task without two epochs of losses has r = 1.

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


def famo(
    *,
    optimizer: optax.GradientTransformation | None = None,
    min_losses: PyTree = None,
) -> Weighting:
    """FAMO: weights that make all log losses fall at the same rate.

    With z = softmax(ξ) and D = L − L_min, the parameters descend Σ_t z_t log D_t / c,
    c = Σ z_t / D_t held constant: w_t = z_t / (c D_t), on the simplex. Then ξ descends
    zᵀ (log D_old − log D_new): old before the parameters' step, new after it, both
    on the same batch.

    The new losses are known only after the step, so they come with the next update:
    `previous_losses` are the losses of the *previous* batch at the *current*
    parameters, an extra argument beside `losses`, those of the current batch. On the
    first update any finite value will do; it is not used.

        (losses, aux), grads, state = oracle(
            shared, own, batch, state, previous_losses=losses_fn(shared, own, last_batch))

    That is one forward pass more a step. Giving the current `losses` as
    `previous_losses` saves it, and lets the change of batch into the difference.

    Args:
      optimizer: of ξ; by default that of the published code, Adam at 0.025 with 1e-3
        of decay added to the gradient:
        `optax.chain(optax.add_decayed_weights(1e-3), optax.adam(0.025))`.
      min_losses: L_min, (T,), a sequence or dict of T scalars below the losses; zero
        by default. A loss at or below it counts as just above.

    Returns:
      Weighting of scope "all" that reads "losses" and "previous_losses".

    Raises:
      ValueError: min_losses or previous_losses are not T scalars.

    Examples:
      >>> import jax.numpy as jnp
      >>> rule = famo()
      >>> losses = jnp.array([1.0, 3.0])
      >>> weights, state = rule.update(rule.init(2), losses=losses, previous_losses=losses)
      >>> [round(float(w), 4) for w in weights]
      [0.75, 0.25]
      >>> after = jnp.array([0.5, 3.0])  # the first task moved, so the second gains
      >>> weights, state = rule.update(state, losses=losses, previous_losses=after)
      >>> [round(float(w), 4) for w in weights]
      [0.7405, 0.2595]

    References:
      Liu, Feng, Stone and Liu, "FAMO: Fast Adaptive Multitask Optimization",
      NeurIPS 2023.
    """
    if optimizer is None:
        optimizer = optax.chain(optax.add_decayed_weights(1e-3), optax.adam(0.025))

    def init(num_tasks: int) -> FAMOState:
        logits = init_learned(optimizer, num_tasks)
        return FAMOState(logits, jnp.ones(num_tasks), jnp.zeros(num_tasks, bool))

    def update(state, *, losses, previous_losses, active=None, **_):
        values, mask = active_losses(losses, active)
        after = stack_losses(previous_losses, values.shape[0])
        after, _ = active_losses(after, state.active)

        drop = _log_gap(state.losses) - _log_gap(after)
        shares = softmax(state.logits.parameters, state.active)
        gradient = shares * (drop - jnp.sum(shares * drop))
        learned = learn(optimizer, state.logits, gradient, state.active)
        seen = jnp.any(state.active)
        logits = jax.tree.map(lambda new, old: jnp.where(seen, new, old), learned, state.logits)

        weights = softmax(logits.parameters - _log_gap(values), mask)
        return weights, FAMOState(logits, values, mask)

    def _log_gap(values: jax.Array) -> jax.Array:
        gap = values
        if min_losses is not None:
            gap = values - task_vector(
                min_losses, values.shape[0], "famo: min_losses", values.dtype
            )
        return jnp.log(jnp.maximum(gap, jnp.finfo(gap.dtype).tiny))

    return Weighting(init, update, frozenset({"losses", "previous_losses"}), "all")
