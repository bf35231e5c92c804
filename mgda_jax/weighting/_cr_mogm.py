"""CR-MOGM: any rule's weights, averaged over the steps."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mgda_jax.tasks import check_hyperparameter
from mgda_jax.weighting.arguments import active_mask
from mgda_jax.weighting.base import Weighting
from mgda_jax.weighting.origin import rule


class SmoothedState(NamedTuple):
    """State of `cr_mogm`.

    Attributes:
      weights: λ (T,), the average so far.
      seen: (T,) bool, tasks that are in it.
      rule: the wrapped rule's state.
    """

    weights: jax.Array
    seen: jax.Array
    rule: Any


@rule
def cr_mogm(weighting: Weighting, *, alpha: float | jax.Array = 0.9) -> Weighting:
    """CR-MOGM: the weights of another rule, smoothed by an exponential moving average.

    λ_k = α λ_{k−1} + (1 − α) λ̂_k with λ̂_k the rule's weights at step k, and λ_0 = λ̂_1. With
    noisy gradients the rule's weights follow the noise, and their correlation with
    it biases the direction; the average is nearly independent of the last batch.
    A task that is not active keeps its average and has no part in the direction.

    Args:
      weighting: the rule, any `Weighting`.
      alpha: α in [0, 1]; 0 is the rule itself. The paper's analysis lets it tend to 1
        as the learning rate falls (a schedule under `optax.inject_hyperparams`).

    Returns:
      Weighting with the scope and reads of the rule.

    Raises:
      ValueError: weighting is no `Weighting`, a concrete α outside [0, 1].

    Examples:
      >>> import jax.numpy as jnp
      >>> from mgda_jax.weighting import min_norm
      >>> rule = cr_mogm(min_norm(), alpha=0.5)
      >>> _, state = rule.update(rule.init(2), gramian=jnp.diag(jnp.array([1.0, 1.0])))
      >>> rule.update(state, gramian=jnp.diag(jnp.array([1.0, 3.0])))[0]
      Array([0.625, 0.375], dtype=float32)

    References:
      Zhou et al., "On the Convergence of Stochastic Multi-Objective Gradient
      Manipulation and Beyond", NeurIPS 2022.
    """
    if not isinstance(weighting, Weighting):
        raise ValueError(f"cr_mogm: weighting: expected a Weighting, got {weighting!r}")
    check_hyperparameter(alpha, lambda x: 0 <= x <= 1, "cr_mogm: alpha must be in [0, 1]")

    def init(num_tasks: int) -> SmoothedState:
        return SmoothedState(
            jnp.zeros(num_tasks), jnp.zeros(num_tasks, bool), weighting.init(num_tasks)
        )

    def update(state, *, active=None, **given):
        fresh, rule = weighting.update(state.rule, active=active, **given)
        mask = active_mask(active, len(fresh))
        last = jnp.where(state.seen, state.weights.astype(fresh.dtype), fresh)
        rate = jnp.asarray(alpha, fresh.dtype)
        weights = jnp.where(mask, rate * last + (1 - rate) * fresh, jnp.zeros_like(fresh))
        kept = jnp.where(mask, weights, state.weights.astype(fresh.dtype))
        return weights, SmoothedState(kept, state.seen | mask, rule)

    return Weighting(init, update, weighting.reads, weighting.scope)
