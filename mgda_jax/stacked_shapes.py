"""Stacked gradients against the parameters' shapes: T gradients, or one as long as T."""

from typing import Any

import jax
import jax.numpy as jnp

from mgda_jax._gramian import check_rows
from mgda_jax.tasks import path_name

PyTree = Any


Shapes = dict[tuple[Any, ...], tuple[int, ...]]


def shapes_of(params: PyTree) -> Shapes:
    """The parameters' shapes by path."""
    flat = jax.tree_util.tree_flatten_with_path(params)[0]
    return {path: tuple(getattr(leaf, "shape", ())) for path, leaf in flat}


def check_shapes(
    updates: PyTree, candidates: list[Shapes], mask: list[bool], num_tasks: int
) -> None:
    flat = jax.tree_util.tree_flatten_with_path(updates, is_leaf=lambda node: node is None)[0]
    absent = {path for path, leaf in flat if leaf is None}
    present = [(path, leaf) for path, leaf in flat if leaf is not None]
    kinds = [(path, leaf, shared) for (path, leaf), shared in zip(present, mask, strict=True)]
    check_rows({path_name(path): leaf for path, leaf, shared in kinds if shared}, num_tasks)
    if not candidates:
        raise ValueError(
            "gradients: expected update(updates, state, params), or init before: without the "
            "parameters' shapes a gradient whose first axis is T looks like T gradients"
        )
    errors = [_mismatch(kinds, absent, shapes, num_tasks) for shapes in candidates]
    if all(errors):
        raise ValueError(errors[-1])


def _mismatch(kinds: list[Any], absent: set[Any], shapes: Shapes, num_tasks: int) -> str | None:
    """What is wrong with these gradients of parameters of these shapes, or None."""
    given = {path for path, _, _ in kinds} | absent
    for path in shapes:
        if not any(path[:depth] in given for depth in range(len(path) + 1)):
            return (
                f"gradients: expected the structure of params, no gradient at '{path_name(path)}'"
            )
    for path, leaf, is_shared in kinds:
        name, got = path_name(path), jnp.shape(leaf)
        if path not in shapes:
            return f"gradients: expected the structure of params, which have nothing at '{name}'"
        want = (num_tasks, *shapes[path]) if is_shared else shapes[path]
        if got != want:
            kind = "shared, stacked over tasks" if is_shared else "own, parameter-shaped"
            return (
                f"gradients at '{name}': expected shape {want} ({kind}; the parameter "
                f"is {shapes[path]}), got {got}"
            )
    return None
