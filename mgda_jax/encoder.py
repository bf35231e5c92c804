"""The encoder's half of the oracle: one forward pass, and its pullbacks."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mgda_jax.gradients import over_tasks, vjp
from mgda_jax.gramian import mean_over_axis, weighted_sum
from mgda_jax.tasks import path_name, task_names

PyTree = Any


class Ragged(NamedTuple):
    """What decode reads where the tasks' representations do not stack.

    Attributes:
      parts: T pytrees in task order.
    """

    parts: tuple[PyTree, ...]


class Encoder(NamedTuple):
    """An encoder at one point, ready to be pulled back.

    Attributes:
      zs: the representation, one copy per task: leaves (T, *shape), or `Ragged`.
      aux: encode's auxiliary output, or None.
      rows: `rows(dzs) -> gradients`, every task's own: leaves (T, *shape).
      combine: `combine(dzs, weights, active) -> gradient` of Σ_t w_t L_t. Both are means over
        the mapped axis, where there is one.
    """

    zs: PyTree
    aux: Any
    rows: Callable[[PyTree], PyTree]
    combine: Callable[..., PyTree]


def shared_inputs(
    encode: Callable,
    params: PyTree,
    batch: PyTree,
    num_tasks: int,
    has_aux: bool,
    pullbacks: str | None = None,
    axis_name: Any = None,
) -> Encoder:
    """All tasks see one batch: one forward, one pullback for any weighted combination."""
    z, pull_local, aux = vjp(lambda p: encode(p, batch), params, has_aux=has_aux)
    pull = _reduced(pull_local, axis_name)
    zs = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (num_tasks, *jnp.shape(leaf))), z)

    def rows(dzs):
        return over_tasks(lambda dz: pull(dz)[0], dzs, pullbacks)

    def combine(dzs, weights, active):
        return pull(weighted_sum(dzs, weights, active=active))[0]

    return Encoder(zs, aux, rows, combine)


def per_task_inputs(
    encode: Callable,
    params: PyTree,
    batch: PyTree,
    num_tasks: int,
    has_aux: bool,
    axis_name: Any = None,
) -> Encoder:
    """Each task has its own batch: one forward and one pullback a task."""
    batches = one_level(batch)
    if len(batches) != num_tasks:
        raise ValueError(
            f"batch: with inputs='per_task' expected a dict, tuple or list of {num_tasks} batches, "
            f"one per task, got {len(batches)}"
        )
    forwards = [vjp(lambda p, b=b: encode(p, b), params, has_aux=has_aux) for b in batches]
    pulls = [_reduced(forward[1], axis_name) for forward in forwards]
    zs = _stack_or_ragged([forward[0] for forward in forwards])

    def rows(dzs):
        pulled = [pull(_row(dzs, t))[0] for t, pull in enumerate(pulls)]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *pulled)

    def combine(dzs, weights, active):
        return weighted_sum(rows(dzs), weights, active=active)

    aux = tuple(forward[2] for forward in forwards) if has_aux else None
    return Encoder(zs, aux, rows, combine)


def _reduced(pull: Callable[[PyTree], tuple], axis_name: Any) -> Callable[[PyTree], tuple]:
    # Before any Gramian, which is quadratic: the rows are those of the whole batch.
    return lambda dz: mean_over_axis(pull(dz), axis_name)


def one_level(tree: PyTree) -> list[PyTree]:
    """The children of a container in task order (dicts sorted by key); [] for a leaf."""
    if jax.tree_util.all_leaves([tree]):
        return []
    return jax.tree.leaves(tree, is_leaf=lambda node: node is not tree)


def child_names(tree: PyTree) -> tuple[str, ...]:
    """The names of `one_level`'s children: keys, fields, or positions."""
    children = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda node: node is not tree)[0]
    return tuple(path_name(path) for path, _ in children if path)


def check_batch_names(batch: PyTree, losses: PyTree) -> None:
    """Raise ValueError unless the batches of the tasks are named as the losses are."""
    given, names = child_names(batch), task_names(losses)
    if given != names:
        raise ValueError(
            "batch: with inputs='per_task' expected a batch for each of the losses "
            f"{list(names)}, under the same names, got {list(given)}"
        )


def _stack_or_ragged(parts: list[PyTree]) -> PyTree:
    kinds = [
        (jax.tree.structure(part), [(jnp.shape(x), jnp.result_type(x)) for x in leaves])
        for part, leaves in ((part, jax.tree.leaves(part)) for part in parts)
    ]
    if any(kind != kinds[0] for kind in kinds):
        return Ragged(tuple(parts))
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)


def _row(dzs: PyTree, task: int) -> PyTree:
    return dzs.parts[task] if isinstance(dzs, Ragged) else jax.tree.map(lambda x: x[task], dzs)
