"""Weighted Tchebycheff scalarisation, and its smooth form."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mgda_jax.tasks import check_hyperparameter, task_vector
from mgda_jax.weighting.arguments import check_each, check_preference, task_preference
from mgda_jax.weighting.base import Weighting
from mgda_jax.weighting.division import one_for_zero
from mgda_jax.weighting.losses import NoState, active_losses, softmax, valid_losses
from mgda_jax.weighting.origin import rule
from mgda_jax.weighting.unit_gramian import normalized

PyTree = Any


@rule
def tchebycheff(
    *, preference: PyTree = None, ideal: PyTree = None, mu: float | jax.Array = 0.0
) -> Weighting:
    """Weighted Tchebycheff scalarisation: descend the worst loss, as the preference weighs it.

    max_t c_t (L_t − z_t), so that w_t = c_t where that is largest and zero elsewhere (equal
    ones share); with μ > 0 smooth, μ log Σ_t exp(c_t (L_t − z_t) / μ), w_t = c_t
    softmax(c (L − z) / μ)_t. Every Pareto optimal point is the minimum for some preference, on
    a concave front too, of which weighted sums find the ends alone: where c_t (L_t − z_t) is
    the same for all tasks. `stch` is the smooth form of log losses with a measured nadir.

    Args:
      preference: c ≥ 0, not all zero, (T,) array, sequence or dict by name; None for equal
        ones. Divided by its sum over the active tasks. May be traced (many under vmap).
      ideal: z, a lower bound of each loss; None for zero.
      mu: μ ≥ 0, in units of c L; 0 is the largest alone.

    Returns:
      Weighting of scope "all" that reads "losses". NaN where a loss is below its ideal.

    Raises:
      ValueError: an argument out of its range.

    Examples:
      >>> import jax.numpy as jnp
      >>> rule = tchebycheff(preference=(0.25, 0.75))
      >>> rule.update(rule.init(2), losses=jnp.array([2.0, 1.0]))[0]
      Array([0.  , 0.75], dtype=float32)

    References:
      Lin et al., "Smooth Tchebycheff Scalarization for Multi-Objective Optimization",
      ICML 2024. Bowman, "On the Relationship of the Tchebycheff Norm and the Efficient
      Frontier of Multiple-Criteria Objectives", 1976.
    """
    check_preference(preference, "tchebycheff")
    if ideal is not None:
        check_each(ideal, np.isfinite, "tchebycheff: ideal must be finite numbers")
    check_hyperparameter(mu, lambda x: x >= 0, "tchebycheff: mu must be 0 or more")

    def update(state, *, losses, active=None, **_):
        values, mask = active_losses(losses, active)
        size, dtype = len(values), values.dtype
        if ideal is not None:
            bound = task_vector(ideal, size, "tchebycheff: ideal", dtype)
            values = jnp.where(mask, values - bound, jnp.zeros_like(values))
        vector = task_preference(preference, size, dtype, active, "tchebycheff")
        vector = normalized(vector)
        weighed = vector * values
        top = jnp.max(weighed, where=mask, initial=0)
        # Not by the difference, in which a fused product is not the rounded one.
        worst = weighed == top
        width = jnp.asarray(mu, dtype)
        # Differences before the division, which a small μ would let overflow.
        below = jnp.where(worst, jnp.zeros_like(weighed), weighed - top)
        smooth = softmax(below / one_for_zero(width), mask)
        ones = (worst & mask).astype(dtype)
        share = jnp.where(width > 0, smooth, ones / one_for_zero(jnp.sum(ones)))
        return jnp.where(valid_losses(values, mask), vector * share, jnp.nan), state

    return Weighting(lambda num_tasks: NoState(), update, frozenset({"losses"}), "all")
