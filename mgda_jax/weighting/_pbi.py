"""PBI: the distance along a ray, and a penalty on the distance from it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mgda_jax.tasks import check_hyperparameter, task_vector
from mgda_jax.weighting.arguments import check_each
from mgda_jax.weighting.base import Weighting
from mgda_jax.weighting.division import one_for_zero
from mgda_jax.weighting.losses import NoState, active_losses, valid_losses
from mgda_jax.weighting.origin import rule
from mgda_jax.weighting.rays import check_ray, task_ray

PyTree = Any

# Distance from the ray, in eps of that from the ideal, that counts as none.
_ON_RAY = 16


@rule
def pbi(*, ray: PyTree = None, ideal: PyTree = None, theta: float | jax.Array = 5.0) -> Weighting:
    """Penalty boundary intersection: descend along a ray in the space of losses, and towards it.

    With F = L − z, λ the ray's unit vector, d₁ = ⟨F, λ⟩ and d₂ = ‖F − d₁λ‖ it descends d₁ + θd₂:

        w = λ + θ (F − d₁λ) / d₂,   w = λ on the ray itself.

    A loss that is small for the ray may have a negative weight: it is raised. Where θ is large
    enough the minimum is where the ray meets the front, a concave one too; there d₂ has a
    kink, about which steps of a fixed length oscillate.

    Args:
      ray: the ratio of the losses to end at, (T,) array, sequence or dict by name ≥ 0, not all
        zero; None for equal losses. May be traced (many under vmap).
      ideal: z, a lower bound of each loss; None for zero.
      theta: θ ≥ 0, the penalty.

    Returns:
      Weighting of scope "all" that reads "losses". NaN where a loss is below its ideal.

    Raises:
      ValueError: an argument out of its range.

    Examples:
      >>> import jax.numpy as jnp
      >>> rule = pbi(ray=(1.0, 0.0), theta=2.0)
      >>> rule.update(rule.init(2), losses=jnp.array([3.0, 0.0]))[0]
      Array([1., 0.], dtype=float32)
      >>> rule.update(rule.init(2), losses=jnp.array([3.0, 1.0]))[0]
      Array([1., 2.], dtype=float32)

    References:
      Zhang and Li, "MOEA/D: A Multiobjective Evolutionary Algorithm Based on Decomposition",
      IEEE Transactions on Evolutionary Computation 2007, section II.B; θ = 5 is theirs.
    """
    check_ray(ray, "pbi: ray")
    if ideal is not None:
        check_each(ideal, np.isfinite, "pbi: ideal must be finite numbers")
    check_hyperparameter(theta, lambda x: x >= 0, "pbi: theta must be 0 or more")

    def update(state, *, losses, active=None, **_):
        values, mask = active_losses(losses, active)
        size, dtype = len(values), values.dtype
        unit = task_ray(ray, size, dtype, active, "pbi: ray")
        if ideal is not None:
            values = values - task_vector(ideal, size, "pbi: ideal", dtype)
        values = jnp.where(mask, values, jnp.zeros_like(values))
        # F itself may be beyond what can be squared.
        scaled = values / one_for_zero(jnp.max(values))
        off = scaled - jnp.sum(scaled * unit) * unit
        off = off - jnp.sum(off * unit) * unit  # orthogonal to rounding of its own length
        distance = jnp.sqrt(jnp.sum(off * off))
        noise = _ON_RAY * jnp.finfo(dtype).eps * jnp.sqrt(jnp.sum(scaled * scaled))
        towards = jnp.where(distance <= noise, 0, off / one_for_zero(distance))
        weights = unit + jnp.asarray(theta, dtype) * towards
        return jnp.where(valid_losses(values, mask), weights, jnp.nan), state

    return Weighting(lambda num_tasks: NoState(), update, frozenset({"losses"}), "all")
