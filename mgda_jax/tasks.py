"""The tasks axis: one order for losses, names, preferences and masks.

Tasks are ordered as the leaves of the losses pytree: an array (T,), a tuple of
scalars, or a dict of named scalars (sorted by key, as JAX sorts it).
"""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

PyTree = Any


def task_vector(value: PyTree, num_tasks: int, name: str, dtype: Any = None) -> jax.Array:
    """One value per task as an array (T,), from whatever form a user gives.

    Args:
      value: array (T,), a sequence of T scalars, or a dict of T named scalars
        (sorted by key). A dict may hold scalars only.
      num_tasks: T.
      name: the argument's name, for the error.
      dtype: dtype of the result; by default that of the values.

    Returns:
      Array (T,).

    Raises:
      ValueError: when there are not exactly T scalars.

    Examples:
      >>> task_vector({"right": 2.0, "left": 1.0}, 2, "preference", jnp.float32)
      Array([1., 2.], dtype=float32)
    """
    if isinstance(value, (list, tuple, dict)):
        leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(value)]
        for leaf in leaves:
            if leaf.ndim != 0:
                raise ValueError(
                    f"{name}: expected one scalar per task, got an entry of shape {leaf.shape}"
                )
        if len(leaves) != num_tasks:
            raise ValueError(
                f"{name}: expected {num_tasks} entries, one per task, got {len(leaves)}"
            )
        out = jnp.stack(leaves)
    else:
        out = jnp.asarray(value)
    if out.shape != (num_tasks,):
        raise ValueError(
            f"{name}: expected shape ({num_tasks},), one entry per task, got {out.shape}"
        )
    return out if dtype is None else out.astype(dtype)


def stack_losses(losses: PyTree, num_tasks: int | None = None) -> jax.Array:
    """The losses pytree as one array (T,) in task order.

    Raises:
      ValueError: losses that are not T real floating scalars, one level deep. Integer and
        boolean losses have no gradient, and a zero row takes all of a min-norm point's weight.
    """
    flat = jax.tree_util.tree_flatten_with_path(losses, is_leaf=lambda node: node is None)[0]
    if not flat:
        raise ValueError("losses: expected at least one task, got none")
    is_vector = len(flat) == 1 and np.ndim(flat[0][1]) == 1
    for path, leaf in flat:
        where = f"losses{jax.tree_util.keystr(path)}"
        if leaf is None or len(path) > 1 or (np.ndim(leaf) != 0 and not is_vector):
            got = "None" if leaf is None else f"shape {np.shape(leaf)}"
            raise ValueError(
                f"{where}: expected a scalar loss per task (an array (T,), a tuple or a dict of "
                f"scalars; auxiliary output goes with has_aux=True), got {got}"
            )
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise ValueError(
                f"{where}: expected a real floating dtype, got {jnp.result_type(leaf)}"
            )
    count = np.shape(flat[0][1])[0] if is_vector else len(flat)
    if num_tasks is not None and count != num_tasks:
        raise ValueError(f"losses: expected {num_tasks} tasks, got {count}")
    if count == 0:
        raise ValueError("losses: expected at least one task, got none")
    leaves = [jnp.asarray(leaf) for _, leaf in flat]
    return leaves[0] if is_vector else jnp.stack(leaves)


def unstack_like(vector: jax.Array, losses: PyTree) -> PyTree:
    """The inverse of `stack_losses`: the entries of a (T,) array in the losses' structure."""
    leaves, treedef = jax.tree.flatten(losses)
    if len(leaves) == 1 and jnp.ndim(leaves[0]) == 1:
        return jax.tree.unflatten(treedef, [vector])
    return jax.tree.unflatten(treedef, [vector[t] for t in range(len(leaves))])


def cotangent(losses: PyTree, vector: jax.Array) -> PyTree:
    """(T,) numbers as a cotangent of the losses, in their structure and dtypes."""
    parts = unstack_like(vector, losses)
    return jax.tree.map(lambda part, loss: part.astype(jnp.result_type(loss)), parts, losses)


def task_mask(active: PyTree, num_tasks: int) -> jax.Array | None:
    """active as (T,) bool, or None; ValueError for another shape or dtype."""
    if active is None:
        return None
    mask = task_vector(active, num_tasks, "active")
    if mask.dtype != jnp.bool_:
        raise ValueError(f"active: expected bools, got dtype {mask.dtype}")
    return mask


def task_names(losses: PyTree) -> tuple[str, ...]:
    """The tasks' names in task order: dict keys, or "0", "1", … when they have none.

    Examples:
      >>> task_names({"right": 0.0, "left": 0.0})
      ('left', 'right')
    """
    flat = jax.tree_util.tree_flatten_with_path(losses)[0]
    if len(flat) == 1 and np.ndim(flat[0][1]) == 1:
        return tuple(str(t) for t in range(np.shape(flat[0][1])[0]))
    return tuple(path_name(path) for path, _ in flat)


def check_names(given: Mapping[str, PyTree]) -> None:
    """Raise ValueError where two of the values name the tasks, and name them differently.

    Args:
      given: what was given per task, by what it is called in errors. Arrays, sequences
        and None have no names.
    """
    named = {what: _names(value) for what, value in given.items()}
    named = {what: names for what, names in named.items() if names is not None}
    for (first, expected), (what, names) in itertools.pairwise(named.items()):
        if names != expected:
            raise ValueError(f"{what}: expected the tasks of {first}, {expected}, got {names}")


def _names(value: PyTree) -> tuple[str, ...] | None:
    flat = jax.tree_util.tree_flatten_with_path(value, is_leaf=lambda node: node is not value)[0]
    if isinstance(value, Mapping) and not (len(flat) == 1 and np.ndim(flat[0][1]) == 1):
        return tuple(path_name(path) for path, _ in flat)
    fields = getattr(value, "_fields", None) if isinstance(value, tuple) else None
    return None if fields is None else tuple(fields)


def one_level(tree: PyTree) -> list[PyTree]:
    """The children of a container in task order (dicts sorted by key); [] for a leaf."""
    if jax.tree_util.all_leaves([tree]):
        return []
    return jax.tree.leaves(tree, is_leaf=lambda node: node is not tree)


def child_names(tree: PyTree) -> tuple[str, ...]:
    """The names of `one_level`'s children: keys, fields, or positions."""
    children = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda node: node is not tree)[0]
    return tuple(path_name(path) for path, _ in children if path)


def path_name(path: tuple[Any, ...]) -> str:
    """A pytree path as "encoder/conv/kernel", the form predicates and errors use."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def check_num_tasks(num_tasks: Any, who: str) -> int:
    """T as a Python int ≥ 1, or a ValueError that says why not."""
    return check_int(num_tasks, lambda n: n >= 1, f"{who}: num_tasks must be an int >= 1")


def check_int(
    value: Any, condition: Callable[[int], bool], message: str, *, traced: bool = False
) -> Any:
    """A static int hyperparameter as a Python int, or ValueError(message, got value).

    A bool is no int, nor is a float with an integer value. Arrays are refused, because
    shapes and loop bounds hang on the value.

    Args:
      value: what the user gave.
      condition: asked of a concrete number.
      message: names the rule and the argument, and says what is expected.
      traced: let scalar integer arrays pass unchanged, traced ones without asking the
        condition.

    Returns:
      The value as a Python int, or the array.

    Examples:
      >>> check_int(1.5, lambda n: n >= 1, "min_norm: max_steps must be an int >= 1")
      Traceback (most recent call last):
      ValueError: min_norm: max_steps must be an int >= 1, got 1.5
    """
    if isinstance(value, (jax.Array, Tracer)):
        if not traced:
            raise ValueError(
                f"{message}: expected a static int, got an array; under "
                "optax.inject_hyperparams list it in static_args"
            )
        fits = value.ndim == 0 and jnp.issubdtype(value.dtype, jnp.integer)
        if fits and (isinstance(value, Tracer) or condition(int(value))):
            return value
    elif isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        if condition(int(value)):
            return int(value)
    raise ValueError(f"{message}, got {value!r}")


def check_hyperparameter(value: Any, condition: Callable[[Any], bool], message: str) -> None:
    """ValueError(message) unless a concrete value is a finite real scalar that meets the condition.

    Args:
      value: what the user gave; traced values pass.
      condition: asked of a concrete number.
      message: names the rule and the argument, and says what is expected.

    Returns:
      None.

    Examples:
      >>> check_hyperparameter(-1.0, lambda c: c >= 0, "cagrad: c must be >= 0")
      Traceback (most recent call last):
      ValueError: cagrad: c must be >= 0, got -1.0
    """
    if isinstance(value, Tracer):
        return
    concrete = np.asarray(value)
    # jnp's, because numpy does not know bfloat16 for a number.
    real = any(jnp.issubdtype(concrete.dtype, kind) for kind in (jnp.integer, jnp.floating))
    if not real or concrete.ndim or not np.isfinite(concrete) or not condition(concrete):
        raise ValueError(f"{message}, got {value!r}")
