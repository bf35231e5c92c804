"""Which leaves are shared between the tasks, and which task owns the others."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from mgda_jax.tasks import path_name

PyTree = Any
Spec = None | PyTree | Callable[[str], Any]


def shared_mask(shared: Spec, tree: PyTree) -> list[bool]:
    """One bool per leaf of tree: is it shared?

    Args:
      shared: None (every leaf), a prefix of tree whose leaves are bools, or a
        predicate on the leaf's path, such as `lambda path: path.startswith("encoder/")`.
      tree: parameters or updates.

    Returns:
      List of bools in the order of `jax.tree.leaves(tree)`.

    Raises:
      ValueError: a mask that is no prefix of tree, an entry that is no bool, no
        shared leaf at all.
    """
    entries = _per_leaf(True if shared is None else shared, tree, "shared")
    for path, entry in entries:
        if not isinstance(entry, (bool, np.bool_)):
            raise ValueError(f"shared at '{path}': expected True or False, got {entry!r}")
    mask = [bool(entry) for _, entry in entries]
    if mask and not any(mask):
        paths = ", ".join(f"'{path}'" for path, _ in entries[:6])
        raise ValueError(
            f"shared: selects no leaf; the leaves are {paths}{', …' * (len(mask) > 6)}"
        )
    return mask


def owners(owner: Spec, tree: PyTree, mask: list[bool], num_tasks: int) -> list[int | None]:
    """One task index per leaf of tree; None for shared leaves and where owner is None.

    Args:
      owner: None, a prefix of tree whose leaves are task indices (entries of
        shared leaves are not looked at), or a function from a leaf's path to its index.
      tree: parameters or updates.
      mask: `shared_mask` of the same tree.
      num_tasks: T.

    Raises:
      ValueError: an entry of a leaf that is not shared is no index in [0, T).
    """
    if owner is None:
        return [None] * len(mask)
    out: list[int | None] = []
    for (path, entry), is_shared in zip(_per_leaf(owner, tree, "owner", mask), mask, strict=True):
        if is_shared:
            out.append(None)
        elif not isinstance(entry, (int, np.integer)) or not 0 <= entry < num_tasks:
            raise ValueError(
                f"owner at '{path}': expected a task index in [0, {num_tasks}), got {entry!r}"
            )
        else:
            out.append(int(entry))
    return out


def split(tree: PyTree, mask: list[bool]) -> tuple[list[Any], list[Any]]:
    """(shared, own): the leaves of each kind in tree's order."""
    # Lists, because a node of the user's own class may refuse to be built around None.
    leaves = list(zip(jax.tree.leaves(tree), mask, strict=True))
    return [x for x, shared in leaves if shared], [x for x, shared in leaves if not shared]


def merge(treedef: Any, shared: PyTree, own: PyTree, mask: list[bool]) -> PyTree:
    """The inverse of `split`; shared and own may be any pytrees of the same leaves."""
    shared_leaves, own_leaves = iter(jax.tree.leaves(shared)), iter(jax.tree.leaves(own))
    picked = [next(shared_leaves if is_shared else own_leaves) for is_shared in mask]
    return jax.tree.unflatten(treedef, picked)


def _per_leaf(
    spec: PyTree | Callable[[str], Any], tree: PyTree, name: str, skip: list[bool] | None = None
) -> list[tuple[str, Any]]:
    paths = [path_name(path) for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]]
    # A module that is a pytree may be callable too: as a spec it is a tree of entries.
    if callable(spec) and jax.tree_util.all_leaves([spec]):
        skip = skip or [False] * len(paths)
        return [(p, None if skipped else spec(p)) for p, skipped in zip(paths, skip, strict=True)]
    entries, prefix = jax.tree.flatten(spec, is_leaf=lambda node: node is None)
    try:
        subtrees = prefix.flatten_up_to(tree)
    except ValueError as error:
        raise ValueError(f"{name}: expected a prefix of the parameters; {error}") from error
    # A None in the tree (a layer without bias, a frozen part) has no leaves, and no entry.
    full = [e for e, sub in zip(entries, subtrees, strict=True) for _ in jax.tree.leaves(sub)]
    return list(zip(paths, full, strict=True))
