"""Per-task gradients of any function from parameters to T losses."""

from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from mgda_jax import partition
from mgda_jax._tangents import own_gradients, part
from mgda_jax.mapped_axis import mean_over_axis
from mgda_jax.tasks import check_names, path_name, stack_losses, task_mask, task_names

PyTree = Any
Pullbacks = Literal["vmap", "map", "unroll"]


def task_gradients(
    losses_fn: Callable[..., Any],
    shared: PyTree = None,
    has_aux: bool = False,
    *,
    pullbacks: Pullbacks | None = None,
    axis_name: Any = None,
) -> Callable[..., tuple[Any, PyTree]]:
    """Turn a function from parameters to T losses into one that also gives per-task gradients.

    Shared leaves get g_t = ∂L_t/∂θ for every t, own leaves Σ_t ∂L_t/∂θ, which
    is each head's own gradient because only its task's loss reads it. One forward
    pass: dropout masks and BatchNorm statistics are drawn once, for all tasks. What only
    one loss reads is pulled back once, for that loss, so a NaN that arises there stays in
    its task's row; losses computed together, under `vmap` say, cannot be told apart.

    Args:
      losses_fn: `losses_fn(params, *args, **kwargs) -> losses` with losses an array
        (T,), a tuple of scalars or a dict of named scalars; `(losses, aux)` with has_aux.
      shared: which leaves of params are shared: None for all, a prefix of params
        with bools, or a predicate on a leaf's path ("encoder/kernel"). What serves two
        tasks of three is shared too: `check_shared` verifies.
      has_aux: whether losses_fn returns auxiliary output too.
      pullbacks: how the T backward passes run: "vmap", "map" (one after the other, in
        a loop), "unroll", or None for what is fastest: vmap on accelerators; on CPU
        unrolled up to 4 tasks, mapped beyond.
      axis_name: the mapped axis (or axes) over which the examples are spread, in `shard_map`,
        `pmap` or `vmap`: losses and gradients are the means over it.

    Returns:
      `fn(params, *args, active=None, **kwargs) -> (losses, grads)`, or
      `((losses, aux), grads)`. grads has the structure of params, shared leaves
      (T, *shape), own leaves shape: the layout `aggregate(shared=...)` takes.
      With active (T,) bool the own gradients leave inactive tasks out.

    Raises:
      ValueError: losses that are not T scalars; a `shared` that fits no leaf.

    Examples:
      >>> import jax.numpy as jnp
      >>> def losses(p, x):
      ...     return {"a": p["w"] * x + p["a"], "b": p["w"] ** 2 * p["b"]}
      >>> params = {"w": jnp.array(3.0), "a": jnp.array(1.0), "b": jnp.array(2.0)}
      >>> value, grads = task_gradients(losses, shared=lambda path: path == "w")(params, 5.0)
      >>> grads["w"], grads["a"], grads["b"]
      (Array([ 5., 12.], dtype=float32), Array(1., dtype=float32), Array(9., dtype=float32))
    """

    check_pullbacks(pullbacks)

    def value_and_gradients(params: PyTree, *args: Any, active: PyTree = None, **kwargs: Any):
        mask = partition.shared_mask(shared, params)
        treedef = jax.tree.structure(params)

        leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(params)]
        is_float = [jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in leaves]
        floats, others = partition.split(leaves, is_float)
        which, _ = partition.split(mask, is_float)
        shared_part, own_part = partition.split(floats, which)

        def of_parts(shared_part, own_part):
            of_floats = partition.merge(jax.tree.structure(floats), shared_part, own_part, which)
            return losses_fn(partition.merge(treedef, of_floats, others, is_float), *args, **kwargs)

        losses, lin, aux = _linearize(of_parts, shared_part, own_part, has_aux=has_aux)
        num_tasks = stack_losses(losses).shape[0]
        check_names({"losses": losses, "active": active})
        active = task_mask(active, num_tasks)
        parted = part(lin, shared_part, own_part, num_tasks)
        if parted.cotangents:
            rows = over_tasks(lambda row: parted.pull_trunk(row)[0], parted.cotangents, pullbacks)
            rows = mean_over_axis(rows, axis_name)
        else:
            rows = [jnp.stack([jnp.zeros_like(leaf)] * num_tasks) for leaf in shared_part]
        own = mean_over_axis(own_gradients(parted, own_part, active), axis_name)
        losses = losses if axis_name is None else jax.lax.pmean(losses, axis_name)
        grads = partition.merge(jax.tree.structure(floats), rows, own, which)
        no_grads = [
            np.zeros((num_tasks, *leaf.shape) if is_shared else leaf.shape, jax.dtypes.float0)
            for leaf, is_shared in zip(others, partition.split(mask, is_float)[1], strict=True)
        ]
        grads = partition.merge(treedef, grads, no_grads, is_float)
        return ((losses, aux) if has_aux else losses), grads

    return value_and_gradients


def check_shared(
    losses_fn: Callable[..., Any],
    shared: PyTree,
    params: PyTree,
    *args: Any,
    has_aux: bool = False,
    **kwargs: Any,
) -> None:
    """Check on numbers that no leaf `task_gradients` is told to be own serves two losses.

    The gradient of an own leaf is the plain sum of its losses' gradients, outside the rule:
    right for a head, wrong for a tower of two tasks, which belongs to the shared leaves.
    An own leaf may hold the parameters of several heads, each entry one task's. Costs T
    pullbacks; meant for a test or the first step, outside jit.

    Args:
      losses_fn: as for `task_gradients`.
      shared: as for `task_gradients`.
      params: the parameters; use random numbers.
      *args: what else losses_fn takes, and **kwargs.
      has_aux: whether losses_fn returns auxiliary output too.

    Raises:
      ValueError: naming the leaf and the losses that read it.

    Examples:
      >>> import jax.numpy as jnp
      >>> def losses(p):
      ...     return {"a": p["w"] * p["a"], "b": p["w"] ** 2 * p["b"]}
      >>> check_shared(losses, lambda path: path == "w", {"w": 3.0, "a": 1.0, "b": 2.0})
    """
    losses, rows = task_gradients(losses_fn, has_aux=has_aux)(params, *args, **kwargs)
    names = task_names(losses[0] if has_aux else losses)
    mask = partition.shared_mask(shared, params)
    for (path, leaf), is_shared in zip(
        jax.tree_util.tree_flatten_with_path(rows)[0], mask, strict=True
    ):
        if is_shared or leaf.dtype == jax.dtypes.float0:
            continue
        readers = (np.asarray(leaf) != 0).reshape(len(names), -1)
        crowded = readers.sum(axis=0) > 1
        if crowded.any():
            losses = [names[t] for t in np.flatnonzero(readers[:, crowded.argmax()])]
            raise ValueError(
                f"shared: expected True at '{path_name(path)}', which serves the losses {losses}"
            )


def over_tasks(
    pull: Callable[[PyTree], PyTree], cotangents: PyTree, pullbacks: Pullbacks | None
) -> PyTree:
    """pull of every row of the cotangents (T, ...), stacked; see `task_gradients`."""
    num_tasks = jax.tree.leaves(cotangents)[0].shape[0]
    if pullbacks is None:
        # Batched backward passes starve a CPU's caches; convolutions in a loop are slow there.
        on_cpu = jax.default_backend() == "cpu"
        pullbacks = ("unroll" if num_tasks <= 4 else "map") if on_cpu else "vmap"
    if pullbacks == "vmap":
        return jax.vmap(pull)(cotangents)
    if pullbacks == "map":
        return jax.lax.map(pull, cotangents)
    # [t, ...] and not [t], which makes a number of a scalar float0.
    one = [jax.tree.map(lambda leaf, t=t: leaf[t, ...], cotangents) for t in range(num_tasks)]
    rows = [pull(cotangent) for cotangent in one]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)


def check_pullbacks(pullbacks: Any) -> None:
    """Raise ValueError unless pullbacks is one of the known ways."""
    if pullbacks not in (None, *get_args(Pullbacks)):
        raise ValueError(f"pullbacks: expected 'vmap', 'map', 'unroll' or None, got {pullbacks!r}")


def vjp(fun: Callable[..., Any], *primals: PyTree, has_aux: bool) -> tuple[Any, Any, Any]:
    """(value, pullback, aux) of fun, aux None where it returns none."""
    if has_aux:
        return jax.vjp(fun, *primals, has_aux=True)
    return *jax.vjp(fun, *primals), None


def _linearize(fun: Callable[..., Any], *primals: PyTree, has_aux: bool) -> tuple[Any, Any, Any]:
    if has_aux:
        return jax.linearize(fun, *primals, has_aux=True)
    return *jax.linearize(fun, *primals), None


def masked_mean(values: jax.Array, mask: jax.Array) -> jax.Array:
    """The mean of the labelled entries of a batch; zero, with zero gradient, when there is none.

    Σ_i m_i v_i / max(Σ_i m_i, 1). Entries are selected, never multiplied, so a NaN
    in an unlabelled one reaches neither the value nor the gradient with respect
    to values. Where the NaN arises inside a function of the parameters, replace
    its input as well: the derivative there can be 0 · NaN.

    Args:
      values: any shape, floating.
      mask: bool of the same shape, or of its leading axes.

    Returns:
      () in the dtype of values, summed in at least float32.

    Raises:
      ValueError: a mask that is not bool or does not match the leading axes.

    Examples:
      >>> import jax.numpy as jnp
      >>> masked_mean(jnp.array([1.0, jnp.nan, 3.0]), jnp.array([True, False, True]))
      Array(2., dtype=float32)
    """
    if mask.dtype != jnp.bool_ or mask.shape != values.shape[: mask.ndim]:
        raise ValueError(
            f"mask: expected bool of shape {values.shape} or its leading axes, "
            f"got {mask.dtype} {mask.shape}"
        )
    full = jax.lax.broadcast_in_dim(mask, values.shape, tuple(range(mask.ndim)))
    wide = jnp.float64 if values.dtype == jnp.float64 else jnp.float32
    total = jnp.sum(jnp.where(full, values, jnp.zeros_like(values)).astype(wide))
    return (total / jnp.maximum(jnp.sum(full.astype(wide)), 1)).astype(values.dtype)
