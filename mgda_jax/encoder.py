"""The encoder's half of the oracle: one forward pass, and four ways to pull it back."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mgda_jax._gramian import Gramian, gramian, rescale, weighted_sum
from mgda_jax.gradients import over_tasks, vjp
from mgda_jax.mapped_axis import mean_over_axis, sum_over_axis
from mgda_jax.tasks import path_name, task_names

PyTree = Any


class Ragged(NamedTuple):
    """What decode reads where the tasks' representations do not stack.

    Attributes:
      parts: T pytrees in task order.
    """

    parts: tuple[PyTree, ...]


class Encoder(NamedTuple):
    """An encoder at one point, and the way it is pulled back.

    Attributes:
      zs: the representation, one copy per task: leaves (T, *shape), or `Ragged`.
      aux: encode's auxiliary output, or None.
      rows: `rows(dzs)`, of which the rule sees the Gramian: leaves (T, *shape).
      gramian: `gramian(rows, active)` of the whole batch.
      combine: `combine(dzs, rows, weights, active) -> gradient` of Σ_t w_t L_t; rows are None
        where nothing has asked for them. It is a mean over the mapped axis, where there is one.
    """

    zs: PyTree
    aux: Any
    rows: Callable[[PyTree], PyTree]
    gramian: Callable[[PyTree, jax.Array | None], Gramian]
    combine: Callable[..., PyTree]


Constructor = Callable[[Callable, PyTree, PyTree, bool], Encoder]


def representation(num_tasks: int, axis_name: Any = None) -> Constructor:
    """MGDA-UB: the rows are ∂L_t/∂z, and one pullback takes their combination to θ."""

    def at(encode, params, batch, has_aux):
        zs, pull, aux = _one_forward(encode, params, batch, has_aux, num_tasks, axis_name)

        def whole(rows, active):
            gram = gramian(rows, active=active)
            if axis_name is None:
                return gram
            # Of the mean loss the examples of one device have a share of one in so many.
            count = jax.lax.psum(1, axis_name)
            gram = sum_over_axis(gram, axis_name)
            return rescale(gram, jnp.asarray(1 / count, gram.matrix.dtype))

        def combine(dzs, rows, weights, active):
            del rows
            return pull(weighted_sum(dzs, weights, active=active))[0]

        return Encoder(zs, aux, lambda dzs: dzs, whole, combine)

    return at


def exact(num_tasks: int, pullbacks: str | None = None, axis_name: Any = None) -> Constructor:
    """MGDA: T pullbacks give the rows ∂L_t/∂θ, and their combination is the gradient."""

    def at(encode, params, batch, has_aux):
        zs, pull, aux = _one_forward(encode, params, batch, has_aux, num_tasks, axis_name)

        def combine(dzs, rows, weights, active):
            if rows is None:
                return pull(weighted_sum(dzs, weights, active=active))[0]
            return weighted_sum(rows, weights, active=active)

        return Encoder(zs, aux, _rows(pull, pullbacks), _of_rows, combine)

    return at


def lean(num_tasks: int, pullbacks: str | None = None, axis_name: Any = None) -> Constructor:
    """MGDA without keeping the rows: their Gramian, then one more pullback of the combination."""
    # In the batched form XLA can free each leaf once its products are summed.
    pullbacks = pullbacks or "vmap"

    def at(encode, params, batch, has_aux):
        zs, pull, aux = _one_forward(encode, params, batch, has_aux, num_tasks, axis_name)

        def combine(dzs, rows, weights, active):
            del rows
            return pull(weighted_sum(dzs, weights, active=active))[0]

        return Encoder(zs, aux, _rows(pull, pullbacks), _of_rows, combine)

    return at


def per_task(num_tasks: int, axis_name: Any = None) -> Constructor:
    """MGDA where each task has a batch of its own: one forward and one pullback a task."""

    def at(encode, params, batch, has_aux):
        batches = one_level(batch)
        if len(batches) != num_tasks:
            raise ValueError(
                f"batch: with inputs='per_task' expected a dict, tuple or list of {num_tasks} "
                f"batches, one per task, got {len(batches)}"
            )
        forwards = [vjp(lambda p, b=b: encode(p, b), params, has_aux=has_aux) for b in batches]
        pulls = [_reduced(forward[1], axis_name) for forward in forwards]

        def rows_of(dzs):
            pulled = [pull(_row(dzs, t))[0] for t, pull in enumerate(pulls)]
            return jax.tree.map(lambda *leaves: jnp.stack(leaves), *pulled)

        def combine(dzs, rows, weights, active):
            rows = rows_of(dzs) if rows is None else rows
            return weighted_sum(rows, weights, active=active)

        zs = _stack_or_ragged([forward[0] for forward in forwards])
        aux = tuple(forward[2] for forward in forwards) if has_aux else None
        return Encoder(zs, aux, rows_of, _of_rows, combine)

    return at


def _one_forward(encode, params, batch, has_aux, num_tasks, axis_name):
    """One copy of z per task, the pullback, and aux."""
    z, pull, aux = vjp(lambda p: encode(p, batch), params, has_aux=has_aux)
    zs = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (num_tasks, *jnp.shape(leaf))), z)
    return zs, _reduced(pull, axis_name), aux


def _rows(pull: Callable, pullbacks: str | None) -> Callable[[PyTree], PyTree]:
    return lambda dzs: over_tasks(lambda dz: pull(dz)[0], dzs, pullbacks)


def _of_rows(rows: PyTree, active: jax.Array | None) -> Gramian:
    return gramian(rows, active=active)


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
