"""The heads' half of the oracle: one loss a task, each with its own parameters."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mgda_jax._own import scale_own
from mgda_jax.gradients import vjp
from mgda_jax.oracle._ragged import Ragged
from mgda_jax.tasks import (
    check_names,
    child_names,
    cotangent,
    one_level,
    path_name,
    stack_losses,
    task_names,
)

PyTree = Any


def per_task_decode(
    heads: Mapping[str, Callable[..., Any]] | Sequence[Callable[..., Any]], has_aux: bool = False
) -> Callable[..., Any]:
    """The decode that `multitask_value_and_grad` takes, from one function per task.

    Args:
      heads: dict (or sequence) of `head(own[name], z, batch) -> loss`, a scalar, or
        `(loss, aux)` with has_aux. A head may read any part of z.
      has_aux: whether heads return auxiliary output.

    Returns:
      `decode(own, zs, batch) -> losses`, a dict with the same keys (or a tuple); with
      has_aux `(losses, aux)`. own is a dict with the same keys (or a sequence).

    Raises:
      ValueError: no heads; at trace time own without an entry for a head.

    Examples:
      >>> import jax.numpy as jnp
      >>> decode = per_task_decode({"sum": lambda own, z, batch: own * jnp.sum(z),
      ...                           "max": lambda own, z, batch: own * jnp.max(z)})
      >>> z = jnp.array([1.0, 2.0])
      >>> decode({"sum": 1.0, "max": 10.0}, jnp.stack([z, z]), None)
      {'max': Array(20., dtype=float32), 'sum': Array(3., dtype=float32)}
    """
    named = isinstance(heads, Mapping)
    by_key: dict[Any, Callable[..., Any]]
    by_key = dict(heads) if isinstance(heads, Mapping) else dict(enumerate(heads))
    keys = sorted(by_key)
    if not keys:
        raise ValueError("heads: expected at least one, got none")

    def decode(own: Any, zs: PyTree, batch: PyTree):
        # lax.split, because its transpose is one concatenate; indexing would add
        # T arrays of zeros, each as large as all copies together.
        if isinstance(zs, Ragged):
            by_task = zs.parts
        else:
            leaves, treedef = jax.tree.flatten(zs)
            rows = [lax.split(leaf, (1,) * len(keys)) for leaf in leaves]
            by_task = [
                jax.tree.unflatten(treedef, [jnp.squeeze(row[t], 0) for row in rows])
                for t in range(len(keys))
            ]
        losses, aux = {}, {}
        for key, z in zip(keys, by_task, strict=True):
            try:
                own_t = own[key]
            except (KeyError, IndexError, TypeError) as error:
                raise ValueError(f"own: expected an entry {key!r} for head {key!r}") from error
            out = by_key[key](own_t, z, batch)
            losses[key], aux[key] = out if has_aux else (out, None)
        if not named:
            losses, aux = tuple(losses.values()), tuple(aux.values())
        return (losses, aux) if has_aux else losses

    return decode


def check_decode(
    decode: Callable[..., Any], own: PyTree, zs: PyTree, batch: PyTree, has_aux: bool = False
) -> None:
    """Check on numbers that loss t reads only zs[t], and that no own parameter serves two tasks.

    The oracle rests on both: one pullback of the heads then gives every task's
    gradient. Costs T pullbacks; meant for a test or the first step, outside jit.

    Args:
      decode: as for `multitask_value_and_grad`.
      own: the heads' parameters, floating.
      zs: representations, leaves (T, *shape); use random numbers.
      batch: as decode takes it.
      has_aux: whether decode returns (losses, aux).

    Raises:
      ValueError: naming the losses and the leaf that break it.

    Examples:
      >>> import jax.numpy as jnp
      >>> check_decode(lambda own, zs, batch: jnp.sum(zs, axis=1) * own, jnp.ones(2),
      ...              jnp.ones((2, 3)), None)
    """
    losses, pull, _ = vjp(lambda o, z: decode(o, z, batch), own, zs, has_aux=has_aux)
    num_tasks = stack_losses(losses).shape[0]
    own_rows, z_rows = jax.vmap(lambda one: pull(cotangent(losses, one)))(jnp.eye(num_tasks))
    leaks = [
        (int(loss), copy, path_name(path))
        for copy, part in enumerate(_by_copy(z_rows, num_tasks))
        for path, leaf in jax.tree_util.tree_flatten_with_path(part)[0]
        for loss in np.flatnonzero(np.any(np.asarray(leaf).reshape(num_tasks, -1), axis=1))
        if loss != copy
    ]
    if leaks:
        loss, copy, path = min(leaks)
        raise ValueError(f"decode: loss {loss} reads zs[{copy}] at '{path}'")
    for path, leaf in jax.tree_util.tree_flatten_with_path(own_rows)[0]:
        readers = (np.asarray(leaf) != 0).reshape(num_tasks, -1)
        crowded = readers.sum(axis=0) > 1
        if crowded.any():
            tasks = np.flatnonzero(readers[:, crowded.argmax()]).tolist()
            raise ValueError(f"decode: own parameter at '{path_name(path)}' serves losses {tasks}")


def _by_copy(z_rows: PyTree, num_tasks: int) -> list[PyTree]:
    """One tree per copy of the representation, leaves (T, ...): a row per loss."""
    if isinstance(z_rows, Ragged):
        return list(z_rows.parts)
    return [jax.tree.map(lambda leaf, t=t: leaf[:, t], z_rows) for t in range(num_tasks)]


def find_layout(
    own_layout: str | None, own: PyTree, losses: PyTree, needed: bool = False
) -> str | None:
    """own_layout after a look at own; "per_task" where own is named like the losses."""
    names = task_names(losses)
    if own_layout == "stacked":
        for path, leaf in jax.tree_util.tree_flatten_with_path(own)[0]:
            if jnp.shape(leaf)[:1] != (len(names),):
                raise ValueError(
                    f"own at '{path_name(path)}': with own_layout='stacked' expected shape "
                    f"({len(names)}, ...), got {jnp.shape(leaf)}"
                )
    if own_layout == "per_task":
        check_names({"losses": losses, "own": own})
        if len(child_names(own)) != len(names):
            raise ValueError(
                f"own: with own_layout='per_task' expected {len(names)} subtrees, one per task, "
                f"got {list(child_names(own))}"
            )
    if own_layout is None and child_names(own) == names:
        return "per_task"
    if own_layout is None and needed and jax.tree.leaves(own):
        raise ValueError(
            "own: with active expected parameters that separate by task, so that an inactive "
            f"head gets zero: give own_layout, or name them as the losses {list(names)}; got "
            f"{list(child_names(own))}"
        )
    return own_layout


def scale_heads(
    own_grads: PyTree, layout: str | None, weights: jax.Array | None, active: jax.Array | None
) -> PyTree:
    """`scale_own` of every leaf, by the layout of own; as they are where it is unknown."""
    if layout == "stacked":
        return jax.tree.map(lambda leaf: scale_own(leaf, None, weights, active), own_grads)
    if layout == "per_task":
        scaled = [
            jax.tree.map(lambda leaf, t=t: scale_own(leaf, t, weights, active), child)
            for t, child in enumerate(one_level(own_grads))
        ]
        structure = jax.tree.structure(own_grads, is_leaf=lambda node: node is not own_grads)
        return jax.tree.unflatten(structure, scaled)
    return own_grads
