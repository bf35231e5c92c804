"""What both doors to a rule keep between steps, and what they ask of a rule and its state."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mgda_jax.weighting.base import RowRule, Scope, Weighting

PyTree = Any


class AggregateState(NamedTuple):
    """State of `aggregate` and of the oracle.

    Attributes:
      task_weights: (T,) the weights of the last update, for logs; zeros before the
        first, None for a `RowRule`. NaN after a step with NaN or Inf gradients.
      weighting: the rule's own state, always finite.
    """

    task_weights: jax.Array | None
    weighting: Any


def init_state(
    weighting: Weighting | RowRule, num_tasks: int, shared: PyTree = None
) -> AggregateState:
    """The state before the first step; a `RowRule` needs the shared parameters."""
    if isinstance(weighting, RowRule):
        if shared is None:
            raise ValueError("init: a RowRule needs the shared parameters, got None")
        return AggregateState(None, weighting.init(shared, num_tasks))
    return AggregateState(jnp.zeros(num_tasks), weighting.init(num_tasks))


def check_rule(weighting: Any, scope: Any) -> Scope:
    """The rule's own scope, or the one asked for: "shared" or "all".

    Raises:
      ValueError: weighting is no rule, scope is neither, or "all" for a `RowRule`.
    """
    if not isinstance(weighting, (Weighting, RowRule)):
        raise ValueError(f"weighting: expected a Weighting or a RowRule, got {weighting!r}")
    if scope not in (None, "shared", "all"):
        raise ValueError(f"scope: expected 'shared' or 'all', got {scope!r}")
    if isinstance(weighting, RowRule):
        if scope == "all":
            raise ValueError("scope: a RowRule has no weights to scale own gradients, got 'all'")
        return "shared"
    return weighting.scope if scope is None else scope


def check_state(weighting: Weighting | RowRule, state: Any, num_tasks: int) -> None:
    """Raise ValueError unless state is an `AggregateState` of this kind of rule and T tasks."""
    want = None if isinstance(weighting, RowRule) else (num_tasks,)
    weights = state.task_weights if isinstance(state, AggregateState) else state
    got = None if weights is None else getattr(weights, "shape", type(weights).__name__)
    if got != want or not isinstance(state, AggregateState):
        kind = "no weights (a RowRule)" if want is None else f"weights of shape {want}"
        raise ValueError(
            f"state: expected an AggregateState with {kind}, got {got}; was it made for another "
            "number of tasks?"
        )
