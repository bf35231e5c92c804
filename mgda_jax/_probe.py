"""What a backward pass reports: a rule's state as the cotangent of a probe."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from mgda_jax.tasks import check_names, check_num_tasks, path_name, task_mask
from mgda_jax.weighting import min_norm
from mgda_jax.weighting.base import RowRule, Weighting
from mgda_jax.weighting.origin import named_arguments
from mgda_jax.weighting.state import AggregateState, init_state

PyTree = Any
Tasks = int | Sequence[str]


def branch_probe(tasks: Tasks, weighting: Weighting | None = None) -> AggregateState:
    """The probe of `branch` and `branched` before the first step.

    `jax.grad(loss, argnums=(0, 1))(params, probe)` gives the gradients and, as the
    cotangent of the probe, the `AggregateState` after this step: the weights, and for
    `min_norm` the norm and the certificate. It is the probe of the next step where the
    rule keeps state, as Flax does with variables that are overwritten by their gradient.

    Cotangents are floats, so integers and PRNG keys of a state travel as floats that
    hold sixteen bits each, on a last axis of their own: exact in float32.

    Args:
      tasks: T or the tasks' names, as for `branch`.
      weighting: the rule that `branch` is given.

    Returns:
      AggregateState whose every leaf is floating.

    Raises:
      ValueError: a rule that `branch` does not take.

    Examples:
      >>> from mgda_jax import branch
      >>> def loss(z, probe):
      ...     left, right = branch(z, 2, probe=probe)
      ...     return left[0] + 2 * right[1]
      >>> gradient, report = jax.grad(loss, argnums=(0, 1))(jnp.zeros(2), branch_probe(2))
      >>> report.task_weights
      Array([0.8, 0.2], dtype=float32)
    """
    _, num_tasks = names_and_count("branch_probe", tasks)
    return on_board(init_state(check_rule("branch_probe", weighting), num_tasks))


def check_rule(who: str, weighting: Any) -> Weighting:
    """The rule, MGDA for None; ValueError with the entrance that takes it for the others."""
    if weighting is None:
        return min_norm()
    if isinstance(weighting, RowRule):
        raise ValueError(
            f"{who}: weighting combines the rows themselves, expected a Weighting; give it to "
            "aggregate, or to multitask_value_and_grad with mode='exact'"
        )
    if not isinstance(weighting, Weighting):
        raise ValueError(f"{who}: weighting: expected a Weighting, got {weighting!r}")
    others = sorted(weighting.reads - {"gramian"})
    if others:
        raise ValueError(
            f"{who}: weighting reads {', '.join(map(repr, others))}, which a backward pass does "
            "not have; give it to multitask_value_and_grad or aggregate"
        )
    return weighting


def check_probe(who: str, weighting: Weighting, num_tasks: int, probe: Any) -> AggregateState:
    """The probe, of this rule's shapes and dtypes; a blank one for None where none is needed."""
    if probe is None:
        if _keeps_state(weighting, num_tasks):
            raise ValueError(
                f"{who}: weighting keeps state from step to step, expected "
                "probe=branch_probe(tasks, weighting), each step the cotangent of the last"
            )
        return on_board(init_state(weighting, num_tasks))
    expected = jax.eval_shape(lambda: on_board(init_state(weighting, num_tasks)))
    if jax.tree.structure(probe) != jax.tree.structure(expected):
        raise ValueError(
            f"{who}: probe: expected branch_probe(tasks, weighting) of the same rule, "
            f"{jax.tree.structure(expected)}, got {jax.tree.structure(probe)}"
        )
    pairs = zip(
        jax.tree_util.tree_flatten_with_path(probe)[0], jax.tree.leaves(expected), strict=True
    )
    for (path, leaf), want in pairs:
        if jnp.shape(leaf) != want.shape or jnp.result_type(leaf) != want.dtype:
            raise ValueError(
                f"{who}: probe at '{path_name(path)}': expected {want.dtype} {want.shape}, "
                f"got {jnp.result_type(leaf)} {jnp.shape(leaf)}"
            )
    return probe


def on_board(state: PyTree) -> PyTree:
    """The state with every leaf floating, see `branch_probe`."""
    return jax.tree.map(_to_floats, state)


def off_board(floats: PyTree, weighting: Weighting, num_tasks: int) -> AggregateState:
    """The inverse of `on_board`."""
    return jax.tree.map(_from_floats, floats, init_state(weighting, num_tasks))


def names_and_count(who: str, tasks: Any) -> tuple[tuple[str, ...] | None, int]:
    """(names in task order or None, T)."""
    if isinstance(tasks, (tuple, list)) or isinstance(tasks, Mapping):
        names = tuple(sorted(tasks))
        if not names or len(set(names)) < len(names):
            raise ValueError(f"{who}: tasks: expected T or distinct names, got {tasks!r}")
        return names, len(names)
    return None, check_num_tasks(tasks, who)


def named_mask(
    active: PyTree, names: tuple[str, ...] | None, rule: Weighting, num_tasks: int
) -> jax.Array | None:
    """`active` as (T,) bool or None, its names and the rule's compared with those of the tasks."""
    tasks = None if names is None else dict.fromkeys(names)
    check_names({"the branch": tasks, "active": active, **named_arguments(rule)})
    return task_mask(active, num_tasks)


def by_task(names: tuple[str, ...] | None, copies: Sequence[PyTree]) -> Any:
    """Copies in task order as a tuple, or as a dict by name."""
    return tuple(copies) if names is None else dict(zip(names, copies, strict=True))


def _keeps_state(weighting: Weighting, num_tasks: int) -> bool:
    """Whether a step reads what an earlier one changed, by the rule's program."""
    state, matrix = weighting.init(num_tasks), jnp.eye(num_tasks)
    jaxpr = jax.make_jaxpr(lambda state: weighting.update(state, gramian=matrix))(state).jaxpr
    weights, *after = jaxpr.outvars
    read = {id(var) for equation in jaxpr.eqns for var in equation.invars} | {id(weights)}
    return any(
        new is not old and id(old) in read for old, new in zip(jaxpr.invars, after, strict=True)
    )


def _to_floats(leaf: jax.Array) -> jax.Array:
    dtype = jnp.zeros(()).dtype
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    if jnp.issubdtype(leaf.dtype, jnp.integer) and leaf.dtype.itemsize > 2:
        leaf = lax.bitcast_convert_type(leaf, jnp.uint16)
    return leaf if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf.astype(dtype)


def _from_floats(leaf: jax.Array, like: jax.Array) -> jax.Array:
    if jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
        data = lax.bitcast_convert_type(leaf.astype(jnp.uint16), jnp.uint32)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(like))
    if jnp.issubdtype(like.dtype, jnp.integer) and like.dtype.itemsize > 2:
        return lax.bitcast_convert_type(leaf.astype(jnp.uint16), like.dtype)
    return leaf.astype(like.dtype)
