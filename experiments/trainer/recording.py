"""A weighting that also keeps what a user logs: cosines, norms, stationarity."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mgda_jax import AggregateState, Diagnostics, RowRule, Weighting, diagnostics


class Recorded(NamedTuple):
    """State of a recorded rule.

    Attributes:
      rule: the rule's own state.
      diagnostics: of the last step's Gramian and weights.
    """

    rule: Any
    diagnostics: Diagnostics


def recorded(rule: Weighting | RowRule) -> Weighting | RowRule:
    """The same rule with `Diagnostics` in its state, where it reads the Gramian.

    A rule that reads no Gramian is returned as it is: recording would make the oracle
    compute one that nobody else reads.

    Args:
      rule: a `Weighting` or a `RowRule`.

    Returns:
      A rule with the same weights.

    Examples:
      >>> from mgda_jax.weighting import min_norm
      >>> rule = recorded(min_norm())
      >>> rows = jnp.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
      >>> weights, state = rule.update(rule.init(2), gramian=rows @ rows.T)
      >>> int(state.diagnostics.conflicts)
      1
    """
    if isinstance(rule, RowRule) or "gramian" not in rule.reads:
        return rule

    def init(num_tasks: int) -> Recorded:
        shapes = jax.eval_shape(
            diagnostics, jnp.zeros((num_tasks, num_tasks)), jnp.zeros(num_tasks)
        )
        nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return Recorded(rule.init(num_tasks), nothing)

    def update(state: Recorded, *, gramian: Any, **given: Any) -> tuple[jax.Array, Recorded]:
        weights, rule_state = rule.update(state.rule, gramian=gramian, **given)
        return weights, Recorded(rule_state, diagnostics(gramian, weights))

    return rule._replace(init=init, update=update)


def rule_log(state: AggregateState) -> dict[str, jax.Array]:
    """What there is to log of a step: weights, and of a recorded rule its diagnostics."""
    log = {}
    if state.task_weights is not None:
        log["weight"] = state.task_weights
    rule = state.weighting
    if isinstance(rule, Recorded):
        found, rule = rule.diagnostics, rule.rule
        log["cosine"] = found.cosines
        log["direction_norm"] = found.direction_norm
        log["stationarity"] = found.stationarity
    if hasattr(rule, "min_norm"):
        log["min_norm"] = rule.min_norm
    return log
