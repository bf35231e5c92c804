"""What rules with one learned number per task share: the state and a step of its optimiser."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax


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


def chosen_optimizer(
    optimizer: optax.GradientTransformation | None, rule: str
) -> optax.GradientTransformation:
    """The optimiser given, or the default of learned weights; ValueError for what is none."""
    if optimizer is None:
        return optax.adam(0.025)
    if not isinstance(optimizer, optax.GradientTransformation):
        raise ValueError(
            f"{rule}: optimizer must be an optax.GradientTransformation, got {optimizer!r}"
        )
    return optimizer


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
