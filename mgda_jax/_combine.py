"""Gramian → weights → combination: the one step behind every entrance."""

from collections.abc import Callable
from typing import Any

import jax

from mgda_jax._gramian import Gramian, gramian, rescale, weighted_sum
from mgda_jax.mapped_axis import varying_axes
from mgda_jax.products import accumulation_dtype
from mgda_jax.weighting.base import RowRule, Weighting, apply_row_rule, update_weights
from mgda_jax.weighting.state import AggregateState

PyTree = Any


def combine(
    rule: Weighting | RowRule,
    state: AggregateState,
    rows: PyTree,
    *,
    num_tasks: int,
    active: jax.Array | None = None,
    form: Callable[[PyTree], Gramian] | None = None,
    total: Callable[[PyTree, jax.Array], PyTree] | None = None,
    scale: jax.Array | None = None,
    **given: Any,
) -> tuple[PyTree, AggregateState]:
    """d = Σ_t w_t g_t with w from the rule on M_st = ⟨g_s, g_t⟩, or the direction of a row rule.

    Args:
      rule: the rule.
      state: of the last step.
      rows: leaves (T, *shape); whatever form and total read, None where they read nothing.
      num_tasks: T.
      active: (T,) bool or None.
      form: `form(rows) -> Gramian`, by default that of the rows.
      total: `total(rows, weights) -> d`, by default the weighted sum of the rows.
      scale: what the rows are too large by (loss scaling): d and the Gramian are freed of it.
      **given: what else the rule may read.

    Returns:
      d and the state after this step.
    """
    if isinstance(rule, RowRule):
        rows = divide(rows, scale)
        direction, after = apply_row_rule(rule, state.weighting, rows, active=active, **given)
        return direction, AggregateState(None, after)
    gram = None
    if "gramian" in rule.reads:
        gram = gramian(rows, active=active) if form is None else form(rows)
        gram = gram if scale is None else rescale(gram, 1 / scale)
    weights, after = update_weights(
        rule, state.weighting, num_tasks=num_tasks, gramian=gram, active=active, **given
    )
    if total is None:
        direction = weighted_sum(rows, weights, active=active)
    else:
        direction = total(rows, weights)
    assert state.task_weights is not None
    weights = weights.astype(state.task_weights.dtype)
    return divide(direction, scale), AggregateState(weights, after)


def common(gram: Gramian, state: AggregateState) -> Gramian:
    """The Gramian; ValueError where devices of a mapped axis would each find their own weights."""
    missing = varying_axes(gram.matrix) - varying_axes(jax.tree.leaves(state)[0])
    if missing:
        raise ValueError(
            f"axis_name: the Gramian varies over the mapped axes {sorted(missing, key=str)}, "
            "so each device would find weights of its own; expected their names"
        )
    return gram


def divide(tree: PyTree, scale: jax.Array | None) -> PyTree:
    """Every leaf divided by the scale in at least float32, in its own dtype."""
    if scale is None:
        return tree

    def divided(leaf):
        dtype = accumulation_dtype(leaf.dtype)
        return (leaf.astype(dtype) / scale.astype(dtype)).astype(leaf.dtype)

    return jax.tree.map(divided, tree)
