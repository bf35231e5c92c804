"""The two contracts every rule is written against: Weighting and RowRule."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from mgda_jax._gramian import Gramian, check_rows
from mgda_jax.tasks import path_name
from mgda_jax.weighting.origin import Origin, reduce, represent

PyTree = Any
State = Any
Scope = Literal["shared", "all"]


class WeightUpdate(Protocol):
    """(state, what the rule reads) → (weights (T,), new state); see `Weighting`."""

    def __call__(
        self,
        state: State,
        /,
        *,
        key: jax.Array | None = None,
        active: jax.Array | None = None,
        **reads: Any,
    ) -> tuple[jax.Array, State]: ...


class RowUpdate(Protocol):
    """(state, rows, what the rule reads) → (direction, new state); see `RowRule`."""

    def __call__(
        self,
        state: State,
        rows: PyTree,
        /,
        *,
        key: jax.Array | None = None,
        active: jax.Array | None = None,
        **reads: Any,
    ) -> tuple[PyTree, State]: ...


class Weighting(NamedTuple):
    """A rule w = f(M, L, history): task weights from what it says it reads.

    The update direction is Σ_t w_t g_t; the rule never sees the rows g_t, so it
    runs on any Gramian: of shared parameters, of a representation, of one layer.

    Attributes:
      init: `init(num_tasks) -> state`. State is a NamedTuple of arrays (a PRNG
        key as its data), floats in JAX's default float dtype, finite. What only logs read is
        called a report: the field `report`, or all of it where the next step reads nothing.
      update: `update(state, *, gramian=None, losses=None, key=None, active=None,
        **extra) -> (weights, state)`. gramian is a `Gramian` (or a raw (T, T)
        array), losses (T,), active (T,) bool or None, weights (T,). With `active`
        the weights are those of the rule on the active sub-Gramian, zero
        elsewhere; inactive entries of gramian and losses may hold anything,
        NaN included. `key` replaces the draw from the state's own key.
      reads: which of "gramian", "losses" (or another extra argument's name, such
        as "cross_gramian") `update` needs; what no rule reads is never computed.
      scope: "shared" when the weights combine gradients of shared parameters only
        (gradient rules), "all" when they weigh the losses themselves, heads included.
      origin: the call that made it; the `rule` decorator of its factory puts it there.
    """

    init: Callable[[int], State]
    update: WeightUpdate
    reads: frozenset[str] = frozenset({"gramian"})
    scope: Scope = "shared"
    origin: Origin | None = None

    __repr__ = represent
    __reduce__ = reduce


class RowRule(NamedTuple):
    """A rule d = f(G, history) that needs the rows themselves (stacked mode only).

    Attributes:
      init: `init(params, num_tasks) -> state`, params being any pytree of the shared
        parameters (leaves without a task axis).
      update: `update(state, rows, *, losses=None, key=None, active=None, **extra)
        -> (direction, state)`: rows leaves (T, *shape), direction leaves shape.
      reads: extra arguments `update` needs, as in `Weighting`.
      origin: as in `Weighting`.
    """

    init: Callable[[PyTree, int], State]
    update: RowUpdate
    reads: frozenset[str] = frozenset()
    origin: Origin | None = None

    __repr__ = represent
    __reduce__ = reduce


def finite_or_previous(new: PyTree, old: PyTree, ok: jax.Array) -> PyTree:
    """The new state in the old one's dtypes, or the old state where anything new is not finite.

    One bad batch must not end a training: its update is NaN and visible, but
    what the next step reads stays clean.
    """
    checks = [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(new) if _is_float(x)]
    ok = jnp.all(jnp.stack([ok, *checks]))

    def choose(new_leaf, old_leaf):
        if new_leaf.dtype != old_leaf.dtype:
            new_leaf = new_leaf.astype(old_leaf.dtype)
        return jnp.where(ok, new_leaf, old_leaf)

    return jax.tree.map(choose, new, old)


def update_weights(
    weighting: Weighting,
    state: State,
    *,
    num_tasks: int,
    gramian: Gramian | None = None,
    losses: jax.Array | None = None,
    active: jax.Array | None = None,
    key: jax.Array | None = None,
    **extra: Any,
) -> tuple[jax.Array, State]:
    """One step of a rule with everything both callers need around it.

    Checks that what the rule reads is there, hands it nothing else, zeroes the
    weights of inactive tasks and keeps the state free of NaN and Inf. Weights are
    constants to differentiation: who differentiates through a step wants the step.

    Returns:
      weights (T,) and the new state.

    Raises:
      ValueError: something in `weighting.reads` is missing, a state of another number
        of tasks.
    """
    given = {"gramian": gramian, "losses": losses, **extra}
    inputs = read_inputs(weighting, given)
    _check_state(state, jax.eval_shape(lambda: weighting.init(num_tasks)), num_tasks)
    weights, new_state = _call(weighting.update, state, key=key, active=active, **inputs)
    if weights.shape != (num_tasks,):
        raise ValueError(
            f"weighting: expected weights of shape ({num_tasks},), got {weights.shape}; "
            "was it made for another number of tasks?"
        )
    weights = jax.lax.stop_gradient(weights)
    if active is not None:
        weights = jnp.where(active, weights, jnp.zeros_like(weights))
    return weights, finite_or_previous(new_state, state, jnp.all(jnp.isfinite(weights)))


def apply_row_rule(
    rule: RowRule,
    state: State,
    rows: PyTree,
    *,
    active: jax.Array | None = None,
    key: jax.Array | None = None,
    **given: Any,
) -> tuple[PyTree, State]:
    """One step of a row rule: direction and new state, with the care of `update_weights`."""
    inputs = read_inputs(rule, given)
    num_tasks = check_rows(rows)
    expected = jax.eval_shape(lambda p: rule.init(p, num_tasks), jax.tree.map(_parameter, rows))
    _check_state(state, expected, num_tasks)
    direction, new_state = _call(rule.update, state, rows, key=key, active=active, **inputs)
    finite = [jnp.all(jnp.isfinite(d)) for d in jax.tree.leaves(direction) if _is_float(d)]
    return direction, finite_or_previous(new_state, state, jnp.all(jnp.stack(finite)))


def read_inputs(rule: "Weighting | RowRule", given: dict[str, Any]) -> dict[str, Any]:
    """The part of the extra arguments that the rule reads; ValueError for a missing one."""
    missing = sorted(name for name in rule.reads if given.get(name) is None)
    if missing:
        raise ValueError(
            f"weighting reads {', '.join(repr(name) for name in missing)}: expected as a keyword "
            f"argument ({', '.join(name + '=' for name in missing)}) of update, got None"
        )
    return {name: given[name] for name in rule.reads}


def _call(update: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """update(...); outside of jit too as one program, which JAX keeps for the next step.

    Loops that run one by one are lowered again at every call, and take seconds.
    """
    leaves = jax.tree.leaves((args, kwargs))
    concrete = all(isinstance(x, (jax.Array, np.ndarray)) for x in leaves)
    # float0, the gradient of an integer, does not enter a program.
    if not concrete or any(isinstance(x, Tracer) or x.dtype == jax.dtypes.float0 for x in leaves):
        return update(*args, **kwargs)
    return jax.jit(update)(*args, **kwargs)


def _check_state(state: State, expected: State, num_tasks: int) -> None:
    """ValueError unless the state has the structure and shapes of a fresh one."""
    found, wanted = (jax.tree_util.tree_flatten_with_path(s)[0] for s in (state, expected))
    for (path, leaf), (_, want) in zip(found, wanted, strict=False):
        if jnp.shape(leaf) != want.shape:
            raise ValueError(
                f"state at '{path_name(path)}': expected shape {want.shape} for {num_tasks} tasks, "
                f"got {jnp.shape(leaf)}; was it made for another number of tasks?"
            )
    if jax.tree.structure(state) != jax.tree.structure(expected):
        raise ValueError(
            f"state: expected {jax.tree.structure(expected)}, got {jax.tree.structure(state)}; "
            "was it made by another rule?"
        )


def _parameter(rows: jax.Array) -> jax.ShapeDtypeStruct:
    """What these rows are the gradients of; float0 is that of an integer."""
    dtype = jnp.int32 if rows.dtype == jax.dtypes.float0 else rows.dtype
    return jax.ShapeDtypeStruct(rows.shape[1:], dtype)


def _is_float(x: jax.Array) -> bool:
    return jnp.issubdtype(x.dtype, jnp.inexact)
