"""FAMO: weights that decrease all losses at one rate, from losses alone."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mgda_jax.tasks import stack_losses, task_vector
from mgda_jax.weighting.arguments import check_each
from mgda_jax.weighting.base import Weighting
from mgda_jax.weighting.learned import LearnedState, chosen_optimizer, init_learned, learn
from mgda_jax.weighting.losses import active_losses, softmax, valid_losses
from mgda_jax.weighting.origin import rule

PyTree = Any


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


@rule
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
      optimizer: of ξ; by default Adam at 0.025 with 1e-3 of decay added to the gradient,
        `optax.chain(optax.add_decayed_weights(1e-3), optax.adam(0.025))`. The authors' class
        has the same form with 1e-2; 1e-3 is LibMTL's.
      min_losses: L_min, (T,), a sequence or dict of T scalars below the losses; zero
        by default. A loss equal to it counts as just above, one below it gives NaN.

    Returns:
      Weighting of scope "all" that reads "losses" and "previous_losses".

    Raises:
      ValueError: min_losses that are not finite, an optimizer that is none of optax's; at
        update, min_losses or previous_losses that are not T scalars.

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
    optimizer = chosen_optimizer(optimizer, "famo")
    if min_losses is not None:
        check_each(min_losses, np.isfinite, "famo: min_losses must be finite numbers")

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
        valid = valid_losses(_gap(values), mask) & valid_losses(_gap(after), state.active)
        weights = jnp.where(valid, weights, jnp.nan)
        return weights, FAMOState(logits, values, mask)

    def _gap(values: jax.Array) -> jax.Array:
        if min_losses is None:
            return values
        return values - task_vector(min_losses, len(values), "famo: min_losses", values.dtype)

    def _log_gap(values: jax.Array) -> jax.Array:
        return jnp.log(jnp.maximum(_gap(values), jnp.finfo(values.dtype).tiny))

    return Weighting(init, update, frozenset({"losses", "previous_losses"}), "all")
