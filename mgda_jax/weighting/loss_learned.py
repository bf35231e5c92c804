"""Rules that learn one scale per task: uncertainty weighting and IMTL-L."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from mgda_jax.weighting.base import Weighting
from mgda_jax.weighting.positive import active_losses


class LearnedState(NamedTuple):
    """State of a rule with one learned number per task.

    Attributes:
      parameters: (T,) what is learned.
      optimizer: its optimiser's state.
    """

    parameters: jax.Array
    optimizer: optax.OptState


def init_learned(optimizer: optax.GradientTransformation, num_tasks: int) -> LearnedState:
    """Parameters at zero and their optimiser's first state."""
    return LearnedState(jnp.zeros(num_tasks), optimizer.init(jnp.zeros(num_tasks)))


def learn(
    optimizer: optax.GradientTransformation,
    state: LearnedState,
    gradient: jax.Array,
    mask: jax.Array,
) -> LearnedState:
    """One step of the small optimiser on the parameters (T,) of the active tasks.

    What the optimiser keeps per task (leaves (T,)) stays as it was for inactive
    tasks, so momentum does not move a task that was not there.
    """
    # optax's own arithmetic relies on the standard promotion rules.
    with jax.numpy_dtype_promotion("standard"):
        updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.parameters)
        parameters = state.parameters + jnp.asarray(updates)
    new = LearnedState(parameters, optimizer_state)

    def choose(new_leaf, old_leaf):
        per_task = jnp.shape(new_leaf) == mask.shape
        return jnp.where(mask, new_leaf, old_leaf) if per_task else new_leaf

    return jax.tree.map(choose, new, state)


def uncertainty(*, optimizer: optax.GradientTransformation | None = None) -> Weighting:
    """Uncertainty weighting: losses scaled by learned homoscedastic uncertainties.

    Descends Σ_t ½ (L_t e^{−s_t} + s_t) in the parameters and in s together:
    w_t = ½ e^{−s_t}, ∂/∂s_t = ½ (1 − L_t e^{−s_t}), s = 0 at first. At rest e^{s_t} = L_t.
    The ½ is that of the regression likelihood and of the public benchmarks.

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
    optimizer = optax.adam(0.025) if optimizer is None else optimizer

    def update(state, *, losses, active=None, **_):
        values, mask = active_losses(losses, active)
        precision = jnp.exp(-state.parameters)
        weights = jnp.where(mask, 0.5 * precision, jnp.zeros_like(precision))
        gradient = 0.5 * (1 - values * precision)
        return weights, learn(optimizer, state, gradient, mask)

    return Weighting(
        lambda num_tasks: init_learned(optimizer, num_tasks), update, frozenset({"losses"}), "all"
    )


def imtl_l(*, optimizer: optax.GradientTransformation | None = None) -> Weighting:
    """IMTL-L: learned scales that bring every scaled loss to one.

    Descends Σ_t (e^{s_t} L_t − s_t) in the parameters and in s together: w_t = e^{s_t},
    ∂/∂s_t = e^{s_t} L_t − 1, s = 0 at first. At rest w_t L_t = 1 for every task.

    Args:
      optimizer: of s; `optax.adam(0.025)` by default, as in `uncertainty`. (The paper
        learns s with the model's own optimiser.)

    Returns:
      Weighting of scope "all" that reads "losses"; s is its state's `parameters`.

    Examples:
      >>> import jax.numpy as jnp
      >>> rule = imtl_l(optimizer=optax.sgd(1.0))
      >>> weights, state = rule.update(rule.init(2), losses=jnp.array([1.0, 3.0]))
      >>> weights, state.parameters
      (Array([1., 1.], dtype=float32), Array([ 0., -2.], dtype=float32))

    References:
      Liu et al., "Towards Impartial Multi-task Learning", ICLR 2021, section 3.2.
    """
    optimizer = optax.adam(0.025) if optimizer is None else optimizer

    def update(state, *, losses, active=None, **_):
        values, mask = active_losses(losses, active)
        scales = jnp.exp(state.parameters)
        weights = jnp.where(mask, scales, jnp.zeros_like(scales))
        return weights, learn(optimizer, state, scales * values - 1, mask)

    return Weighting(
        lambda num_tasks: init_learned(optimizer, num_tasks), update, frozenset({"losses"}), "all"
    )
