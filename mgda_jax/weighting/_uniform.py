"""Uniform weights: the sum or the mean of the losses."""

import jax.numpy as jnp

from mgda_jax.weighting.arguments import check_reduction
from mgda_jax.weighting.base import Weighting
from mgda_jax.weighting.origin import rule
from mgda_jax.weighting.static import StaticState


@rule
def uniform(*, reduction: str = "sum") -> Weighting:
    """Uniform scaling: the gradient of the sum, or of the mean, of the losses.

    w_t = 1 for "sum", 1/T for "mean" (of the active tasks).

    Args:
      reduction: "sum" or "mean".

    Returns:
      Weighting of scope "all" that reads nothing.

    Raises:
      ValueError: another reduction.

    Examples:
      >>> rule = uniform(reduction="mean")
      >>> rule.update(rule.init(4))[0]
      Array([0.25, 0.25, 0.25, 0.25], dtype=float32)
    """
    check_reduction(reduction, "uniform")

    def init(num_tasks: int) -> StaticState:
        return StaticState(jnp.ones(num_tasks))

    def update(state, *, active=None, **_):
        weights = state.weights
        if active is not None:
            weights = jnp.where(active, weights, jnp.zeros_like(weights))
        if reduction == "mean":
            weights = weights / jnp.maximum(jnp.sum(weights), 1)
        return weights, state

    return Weighting(init, update, frozenset(), "all")
