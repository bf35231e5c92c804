"""A rule that also keeps what there is to log, so that logging needs no Gramian of its own."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mgda_jax._diagnostics import Diagnostics, diagnostics
from mgda_jax._gramian import Gramian, check_rows, gramian
from mgda_jax.weighting.arguments import check_flag
from mgda_jax.weighting.base import RowRule, Weighting, finite_or_previous
from mgda_jax.weighting.division import one_for_zero
from mgda_jax.weighting.origin import rule
from mgda_jax.weighting.unit_gramian import active_gramian

PyTree = Any


class Recorded(NamedTuple):
    """State of a recorded rule.

    Attributes:
      rule: the rule's own state.
      diagnostics: of a step's Gramian and direction; what overflows is the largest number.
      known: () bool, whether they are of the last step: its gradients were finite.
    """

    rule: Any
    diagnostics: Diagnostics
    known: jax.Array


@rule
def recorded(weighting: Weighting | RowRule, *, always: bool = False) -> Weighting | RowRule:
    """The same rule with `Diagnostics` in its state, for `log_dict`.

    A rule on the Gramian already has all that they take: O(T²) numbers more. Of a
    `RowRule` they are those of its direction d, by one Gramian of the T rows and d. A rule
    that reads no Gramian is returned as it is, because recording would make every
    entrance compute one that nobody else reads: ask for it with `always`.

    Args:
      weighting: a `Weighting` or a `RowRule`.
      always: also for a rule that reads no Gramian, which is then formed.

    Returns:
      A rule with the same weights, or direction.

    Raises:
      ValueError: weighting is no rule, always is no bool.

    Examples:
      >>> import jax.numpy as jnp
      >>> from mgda_jax.weighting import min_norm
      >>> rule = recorded(min_norm())
      >>> rows = jnp.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
      >>> _, state = jax.jit(rule.update)(rule.init(2), gramian=rows @ rows.T)
      >>> int(state.diagnostics.conflicts)
      1
    """
    check_flag(always, "recorded: always")
    if isinstance(weighting, RowRule):
        return _recorded_rows(weighting)
    if not isinstance(weighting, Weighting):
        raise ValueError(
            f"recorded: weighting: expected a Weighting or a RowRule, got {weighting!r}"
        )
    if "gramian" not in weighting.reads and not always:
        return weighting

    def init(num_tasks: int) -> Recorded:
        return _blank(weighting.init(num_tasks), num_tasks)

    def update(state: Recorded, *, gramian: Any, active: Any = None, **given: Any):
        if "gramian" in weighting.reads:
            given["gramian"] = gramian
        weights, rule_state = weighting.update(state.rule, active=active, **given)
        used = weights if active is None else jnp.where(active, weights, jnp.zeros_like(weights))
        found = diagnostics(active_gramian(gramian, active), jax.lax.stop_gradient(used))
        return weights, _noted(rule_state, found, state)

    return weighting._replace(
        init=init, update=update, reads=weighting.reads | {"gramian"}, origin=None
    )


def _recorded_rows(row_rule: RowRule) -> RowRule:
    def init(params: PyTree, num_tasks: int) -> Recorded:
        return _blank(row_rule.init(params, num_tasks), num_tasks)

    def update(state: Recorded, rows: PyTree, *, active: Any = None, **given: Any):
        direction, rule_state = row_rule.update(state.rule, rows, active=active, **given)
        found = _row_diagnostics(rows, direction, active)
        return direction, _noted(rule_state, found, state)

    return row_rule._replace(init=init, update=update, origin=None)


def _row_diagnostics(rows: PyTree, direction: PyTree, active: jax.Array | None) -> Diagnostics:
    """Diagnostics of a direction that is no combination of the rows with weights of its own."""
    num_tasks = check_rows(rows)
    whole = jax.tree.map(_with_last, rows, direction)
    if active is not None:
        active = jnp.append(active, True)
    gram = gramian(whole, active=active)
    last = jnp.zeros(num_tasks + 1, gram.matrix.dtype).at[num_tasks].set(1)
    of_direction = diagnostics(gram, last)
    tasks = Gramian(gram.matrix[:num_tasks, :num_tasks], gram.exponent)
    lengths = jnp.sqrt(jnp.diagonal(gram.matrix))
    longest = one_for_zero(jnp.max(lengths[:num_tasks]))
    return diagnostics(tasks, jnp.zeros_like(last[:num_tasks]))._replace(
        direction_cosines=of_direction.direction_cosines[:num_tasks],
        direction_norm=of_direction.direction_norm,
        stationarity=lengths[num_tasks] / longest,
    )


def _with_last(leaf: jax.Array, row: jax.Array) -> jax.Array:
    if leaf.dtype == jax.dtypes.float0:
        return leaf[:1].repeat(len(leaf) + 1, axis=0)
    return jnp.concatenate([leaf, row[None]])


def _blank(rule_state: Any, num_tasks: int) -> Recorded:
    shapes = jax.eval_shape(diagnostics, jnp.eye(num_tasks), jnp.zeros(num_tasks))
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return Recorded(rule_state, nothing, jnp.zeros((), bool))


def _noted(rule_state: Any, found: Diagnostics, before: Recorded) -> Recorded:
    """The new state: numbers that are no numbers must not keep the rule's own state back."""
    found = jax.tree.map(_saturated, found)
    known = jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in found]))
    return Recorded(rule_state, finite_or_previous(found, before.diagnostics, known), known)


def _saturated(leaf: jax.Array) -> jax.Array:
    if not jnp.issubdtype(leaf.dtype, jnp.inexact):
        return leaf
    # Selected: XLA's CPU code may drop a NaN in a minimum over a large batch.
    largest = jnp.asarray(jnp.finfo(leaf.dtype).max, leaf.dtype)
    return jnp.where(leaf > largest, largest, leaf)
