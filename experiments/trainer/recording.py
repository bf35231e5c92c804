"""What the trainer logs of a step beside the losses."""

import jax

from mgda_jax import AggregateState, Recorded


def rule_log(state: AggregateState) -> dict[str, jax.Array]:
    """What there is to log of a step: weights, and of a recorded rule its diagnostics."""
    log = {}
    if state.task_weights is not None:
        log["weight"] = state.task_weights
    rule = state.weighting
    if isinstance(rule, Recorded):
        found, rule = rule.diagnostics, rule.rule
        log["cosine"] = found.cosines
        log["norm"] = found.norms
        log["direction_cosine"] = found.direction_cosines
        log["direction_norm"] = found.direction_norm
        log["stationarity"] = found.stationarity
    if hasattr(rule, "min_norm"):
        log["min_norm"] = rule.min_norm
    return log
