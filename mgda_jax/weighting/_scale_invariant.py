"""Scale-invariant weighting: the gradient of the sum of the losses' logarithms."""

import jax.numpy as jnp

from mgda_jax.weighting.arguments import check_reduction
from mgda_jax.weighting.base import Weighting
from mgda_jax.weighting.losses import NoState, active_losses, count, raised_losses
from mgda_jax.weighting.origin import rule


@rule
def scale_invariant(*, reduction: str = "sum") -> Weighting:
    """Scale-invariant scalarisation: descend the sum, or the mean, of the log losses.

    w = ∇_L Σ_t log L_t, that is w_t = 1 / L_t (1 / (T L_t) for "mean"). Multiplying a
    loss by a constant changes nothing. Losses must be positive; a zero loss counts
    as 1e-30 of the largest, a negative one gives NaN.

    Args:
      reduction: "sum" (the Nash-MTL benchmark's) or "mean".

    Returns:
      Weighting of scope "all" that reads "losses".

    Raises:
      ValueError: another reduction.

    Examples:
      >>> import jax.numpy as jnp
      >>> rule = scale_invariant()
      >>> rule.update(rule.init(2), losses=jnp.array([1.0, 4.0]))[0]
      Array([1.  , 0.25], dtype=float32)

    References:
      The baseline "SI" of Navon et al., "Multi-Task Learning as a Bargaining Game",
      ICML 2022.
    """
    check_reduction(reduction, "scale_invariant")

    def update(state, *, losses, active=None, **_):
        values, mask = active_losses(losses, active)
        weights = 1 / raised_losses(values, mask)
        if reduction == "mean":
            weights = weights / count(mask, weights.dtype)
        return jnp.where(mask, weights, jnp.zeros_like(weights)), state

    return Weighting(lambda num_tasks: NoState(), update, frozenset({"losses"}), "all")
