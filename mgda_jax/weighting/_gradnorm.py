"""GradNorm: weights that bring the gradients' norms to what the tasks' speeds ask."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from mgda_jax.tasks import check_hyperparameter
from mgda_jax.weighting.base import Weighting
from mgda_jax.weighting.division import one_for_zero
from mgda_jax.weighting.learned import LearnedState, chosen_optimizer, learn
from mgda_jax.weighting.losses import active_losses, count, raised_losses
from mgda_jax.weighting.origin import rule
from mgda_jax.weighting.unit_gramian import active_gramian


class GradNormState(NamedTuple):
    """State of `gradnorm`.

    Attributes:
      weights: (T,) w, and its optimiser's state.
      initial_losses: (T,) L(0), each task's first loss.
      seen: (T,) bool, tasks that had a loss.
    """

    weights: LearnedState
    initial_losses: jax.Array
    seen: jax.Array


@rule
def gradnorm(
    *,
    alpha: float | jax.Array = 1.5,
    optimizer: optax.GradientTransformation | None = None,
) -> Weighting:
    """GradNorm: learned weights under which every task trains at the same rate.

    With G_t = w_t‖g_t‖, Ḡ their mean, and r_t = (L_t/L_t(0)) / mean_s(L_s/L_s(0)) the
    inverse training rate, w descends Σ_t |G_t − Ḡ r_t^α| / Ḡ with Ḡ r_t^α held
    constant: ∂/∂w_t = ‖g_t‖/Ḡ · sign(G_t − Ḡ r_t^α). Then w is scaled to Σ w = T. The
    weights of an update are those from before its step; w = 1 at first. Dividing by
    Ḡ keeps the optimiser from feeling the size of the gradients.

    The Gramian is that of whatever the rule is given; the paper takes the gradients of the
    last shared layer: `gramian=mgda_jax.gramian(rows_of_that_layer)` in update. A step that would
    take a weight to zero or below leaves 1e-3 of the mean weight. A task that is not
    active keeps its weight; the active ones are scaled so that they sum to their number.
    Losses must be positive; a zero loss counts as 1e-30 of the largest, a negative one gives
    NaN.

    Args:
      alpha: α ≥ 0, the strength of the restoring force; 1.5 in the paper's NYUv2 runs,
        0.12 in its toy example.
      optimizer: of w; `optax.adam(0.025)` by default.

    Returns:
      Weighting of scope "all" that reads "gramian" and "losses".

    Raises:
      ValueError: a concrete α that is negative, an optimizer that is none of optax's.

    Examples:
      >>> import jax.numpy as jnp
      >>> rule = gradnorm(optimizer=optax.sgd(0.1))
      >>> given = dict(gramian=jnp.diag(jnp.array([9.0, 1.0])), losses=jnp.ones(2))
      >>> weights, state = rule.update(rule.init(2), **given)
      >>> weights, state.weights.parameters.round(4)  # gradient 0 was the longer one
      (Array([1., 1.], dtype=float32), Array([0.8947, 1.1053], dtype=float32))

    References:
      Chen et al., "GradNorm: Gradient Normalization for Adaptive Loss Balancing in
      Deep Multitask Networks", ICML 2018, Algorithm 1.
    """
    check_hyperparameter(alpha, lambda x: x >= 0, "gradnorm: alpha must not be negative")
    optimizer = chosen_optimizer(optimizer, "gradnorm")

    def init(num_tasks: int) -> GradNormState:
        ones = jnp.ones(num_tasks)
        learned = LearnedState(ones, optimizer.init(jnp.ones(num_tasks)))
        return GradNormState(learned, jnp.ones(num_tasks), jnp.zeros(num_tasks, bool))

    def update(state, *, gramian, losses, active=None, **_):
        values, mask = active_losses(losses, active)
        dtype = values.dtype
        positive = raised_losses(values, mask)
        initial = jnp.where(mask & ~state.seen, positive, state.initial_losses)
        weights = _normalized(state.weights.parameters, mask)

        diagonal = jnp.diagonal(active_gramian(gramian, active).matrix).astype(dtype)
        norms = jnp.sqrt(diagonal)
        weighted = weights * norms
        # Relative to the largest ratio, because L/L(0) may overflow.
        log_ratio = jnp.where(mask, jnp.log(positive) - jnp.log(initial), -jnp.inf)
        top = jnp.max(log_ratio)
        ratio = jnp.exp(log_ratio - jnp.where(top == -jnp.inf, jnp.zeros_like(top), top))
        rate = ratio / jnp.where(mask, _mean(ratio, mask), jnp.ones_like(ratio))
        mean = _mean(weighted, mask)
        target = mean * jnp.power(rate, jnp.asarray(alpha, dtype))
        gradient = norms / one_for_zero(mean) * jnp.sign(weighted - target)

        learned = learn(optimizer, state.weights._replace(parameters=weights), gradient, mask)
        floor = jnp.asarray(1e-3, dtype)
        raised = _normalized(jnp.maximum(learned.parameters, floor), mask)
        parameters = jnp.where(mask, raised, state.weights.parameters)
        weights = jnp.where(mask, weights, jnp.zeros_like(weights))
        weights = jnp.where(jnp.all(jnp.isfinite(gradient)), weights, jnp.nan)
        new = GradNormState(learned._replace(parameters=parameters), initial, state.seen | mask)
        return weights, new

    return Weighting(init, update, frozenset({"gramian", "losses"}), "all")


def _mean(vector: jax.Array, mask: jax.Array) -> jax.Array:
    total = jnp.sum(jnp.where(mask, vector, jnp.zeros_like(vector)))
    return total / count(mask, vector.dtype)


def _normalized(weights: jax.Array, mask: jax.Array) -> jax.Array:
    """Scaled so that the active ones sum to their number."""
    return weights / one_for_zero(_mean(weights, mask))
