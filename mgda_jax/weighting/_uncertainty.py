"""Uncertainty weighting: a learned noise scale per task."""

import jax.numpy as jnp
import optax

from mgda_jax.weighting.base import Weighting
from mgda_jax.weighting.learned import chosen_optimizer, init_learned, learn
from mgda_jax.weighting.losses import active_losses, raised_losses, valid_losses
from mgda_jax.weighting.origin import rule


@rule
def uncertainty(*, optimizer: optax.GradientTransformation | None = None) -> Weighting:
    """Uncertainty weighting: losses scaled by learned homoscedastic uncertainties.

    Descends Σ_t ½ (L_t e^{−s_t} + s_t) in the parameters and in s together:
    w_t = ½ e^{−s_t}, ∂/∂s_t = ½ (1 − L_t e^{−s_t}), s = 0 at first. At rest e^{s_t} = L_t.
    The ½ is that of the regression likelihood and of the public benchmarks. A loss below
    zero has no such rest, its weight would grow for ever: losses must be positive; a zero
    loss counts as 1e-30 of the largest, a negative one gives NaN.

    Args:
      optimizer: of s; `optax.adam(0.025)` by default, the Nash-MTL benchmark's setting
        for learned weights. (The paper learns s with the model's own optimiser.)

    Returns:
      Weighting of scope "all" that reads "losses"; s is its state's `parameters`.

    Examples:
      >>> import jax.numpy as jnp
      >>> rule = uncertainty(optimizer=optax.sgd(1.0))
      >>> weights, state = rule.update(rule.init(2), losses=jnp.array([1.0, 3.0]))
      >>> weights, state.parameters
      (Array([0.5, 0.5], dtype=float32), Array([0., 1.], dtype=float32))

    References:
      Kendall, Gal and Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses
      for Scene Geometry and Semantics", CVPR 2018.
    """
    optimizer = chosen_optimizer(optimizer, "uncertainty")

    def update(state, *, losses, active=None, **_):
        values, mask = active_losses(losses, active)
        precision = jnp.exp(-state.parameters)
        weights = jnp.where(mask, 0.5 * precision, jnp.zeros_like(precision))
        weights = jnp.where(valid_losses(values, mask), weights, jnp.nan)
        gradient = 0.5 * (1 - raised_losses(values, mask) * precision)
        return weights, learn(optimizer, state, gradient, mask)

    return Weighting(
        lambda num_tasks: init_learned(optimizer, num_tasks), update, frozenset({"losses"}), "all"
    )
