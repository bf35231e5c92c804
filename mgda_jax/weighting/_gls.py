"""Geometric loss: the gradient of the geometric mean of the losses."""

import jax.numpy as jnp

from mgda_jax.weighting.base import Weighting
from mgda_jax.weighting.losses import NoState, active_losses, count, raised_losses
from mgda_jax.weighting.origin import rule


@rule
def gls() -> Weighting:
    """Geometric loss strategy: descend the geometric mean of the losses.

    w = ∇_L (Π_t L_t)^{1/T}, that is w_t = (Π_s L_s)^{1/T} / (T L_t). All w_t L_t are
    equal. Losses must be positive; a zero loss counts as 1e-30 of the largest, a
    negative one gives NaN.

    Returns:
      Weighting of scope "all" that reads "losses".

    Examples:
      >>> import jax.numpy as jnp
      >>> rule = gls()
      >>> rule.update(rule.init(2), losses=jnp.array([1.0, 4.0]))[0]
      Array([1.  , 0.25], dtype=float32)

    References:
      Chennupati et al., "MultiNet++: Multi-Stream Feature Aggregation and Geometric
      Loss Strategy for Multi-Task Learning", CVPR Workshops 2019.
    """

    def update(state, *, losses, active=None, **_):
        values, mask = active_losses(losses, active)
        values = raised_losses(values, mask)
        # The rule is of degree zero in the losses, and logarithms of ratios are more exact.
        logs = jnp.log(values / jnp.max(jnp.where(mask, values, jnp.zeros_like(values))))
        logs = jnp.where(mask, logs, jnp.zeros_like(logs))
        size = count(mask, logs.dtype)
        weights = jnp.exp(jnp.sum(logs) / size - logs) / size
        return jnp.where(mask, weights, jnp.zeros_like(weights)), state

    return Weighting(lambda num_tasks: NoState(), update, frozenset({"losses"}), "all")
