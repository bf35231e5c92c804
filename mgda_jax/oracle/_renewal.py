"""New weights every k steps, and whenever a task comes back; the last ones in between."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mgda_jax.weighting.state import AggregateState

PyTree = Any


class EveryState(NamedTuple):
    """The rule's state where weights are renewed every k steps.

    Attributes:
      count: () int32, steps since the last renewal, modulo k.
      solved: (T,) bool, the tasks that had a part in it.
      rule: the rule's own state.
    """

    count: jax.Array
    solved: jax.Array
    rule: Any


def init_renewal(every: int, state: AggregateState) -> AggregateState:
    """The state of a rule that is asked every k steps; unchanged for every step."""
    if every == 1:
        return state
    assert state.task_weights is not None
    solved = jnp.zeros(state.task_weights.shape, bool)
    return state._replace(weighting=EveryState(jnp.zeros((), jnp.int32), solved, state.weighting))


def renew(
    every: int,
    fresh: Callable[[AggregateState], tuple[PyTree, AggregateState]],
    again: Callable[[jax.Array], PyTree],
    state: AggregateState,
    active: jax.Array | None,
) -> tuple[PyTree, AggregateState]:
    """The shared gradient of this step and the state after it.

    Args:
      every: k.
      fresh: `fresh(state) -> (gradient, state)`, when it is due.
      again: `again(weights) -> gradient`, with the last weights, when it is not.
      state: of the last step.
      active: (T,) bool or None; the last weights of tasks inactive now are left out.
    """
    if every == 1:
        return fresh(state)
    if not isinstance(state.weighting, EveryState):
        raise ValueError(
            f"state: with every={every} expected the state of an oracle made with every > 1, "
            f"got {type(state.weighting).__name__}"
        )
    last, (count, solved, rule_state) = state.task_weights, state.weighting
    assert last is not None
    taking_part = jnp.ones_like(solved) if active is None else active
    # Weights of a bad batch are reported as NaN; they are not to be used again. A task that
    # had no part in the last solve has no weight to go on with.
    due = (count == 0) | ~jnp.all(jnp.isfinite(last)) | jnp.any(taking_part & ~solved)

    def is_due():
        gradient, new = fresh(state._replace(weighting=rule_state))
        renewed = EveryState(jnp.ones_like(count) % every, taking_part, new.weighting)
        return gradient, new._replace(weighting=renewed)

    def is_not():
        weights = jnp.where(taking_part, last, jnp.zeros_like(last))
        kept = EveryState((count + 1) % every, solved, rule_state)
        return again(weights), AggregateState(weights, kept)

    return lax.cond(due, is_due, is_not)
