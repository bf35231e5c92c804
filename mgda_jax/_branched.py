"""Exact MGDA as a layer: an encoder whose backward pass combines the tasks' own gradients."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import eval_jaxpr

from mgda_jax import _probe
from mgda_jax._branch import Solve, branch, stack
from mgda_jax._gramian import weighted_sum
from mgda_jax.gradients import over_tasks
from mgda_jax.mapped_axis import varying_axes
from mgda_jax.oracle._arguments import as_mode
from mgda_jax.oracle._exact import Exact
from mgda_jax.oracle._representation import Representation
from mgda_jax.weighting.base import Weighting

PyTree = Any
BranchedMode = Literal["exact", "parameters", "representation"] | Exact | Representation


def branched(
    encode: Callable[..., Any],
    tasks: _probe.Tasks,
    weighting: Weighting | None = None,
    *,
    mode: BranchedMode = "exact",
    has_aux: bool = False,
    axis_name: Any = None,
) -> Callable[..., Any]:
    """An encoder that returns one copy of its output per task and combines exactly: MGDA.

    With z = encode(θ, *args) the backward pass pulls every cotangent ∂L_t/∂z back to
    g_t = ∂L_t/∂θ, asks the rule for w on the Gramian of the g_t, and gives θ the
    gradient Σ_t w_t g_t: T pullbacks of encode where `branch` needs one. Everything
    else that z depends on, the other arguments and what encode closes over, gets
    Σ_t w_t of its gradients and has no part in the Gramian.

    Args:
      encode: `encode(shared, *args) -> z`, or `(z, aux)` with has_aux; run once.
      tasks: as for `branch`.
      weighting: as for `branch`.
      mode: "exact" or `oracle.Exact(pullbacks=…)`, or "representation" for `branch` of the
        output.
      has_aux: whether encode returns auxiliary output too. It carries no gradient.
      axis_name: the mapped axis over which the batch is spread: the g_t are summed
        over it before the Gramian. Reduce the gradient that comes out as usual.

    Returns:
      `fn(shared, *args, active=None, probe=None) -> copies`, or `(copies, aux)`: copies,
      active and probe are those of `branch`.

    Raises:
      ValueError: as in `branch`; an unknown mode; no floating leaf in shared or z.

    Examples:
      >>> encode = branched(lambda w, x: w * x, 2)
      >>> def loss(w):
      ...     left, right = encode(w, jnp.array([2.0, 0.5]))
      ...     return left[0] + 2 * right[1]  # gradients (2, 0) and (0, 1)
      >>> jax.grad(loss)(jnp.zeros(2))
      Array([0.4, 0.8], dtype=float32)

    References:
      Désidéri, "Multiple-gradient descent algorithm (MGDA) for multiobjective
      optimization", 2012.
    """
    names, num_tasks = _probe.names_and_count("branched", tasks)
    rule = _probe.check_rule("branched", weighting)
    pulled = as_mode(mode)
    if not isinstance(pulled, (Exact, Representation)):
        raise ValueError(f"mode: branched takes 'exact' and 'representation', got {mode!r}")
    pullbacks = pulled.pullbacks if isinstance(pulled, Exact) else None
    solve = Solve(rule, num_tasks, None)

    def of_representation(shared, *args, active=None, probe=None):
        z, aux = encode(shared, *args) if has_aux else (encode(shared, *args), None)
        copies = branch(z, tasks, rule, active=active, probe=probe, axis_name=axis_name)
        return (copies, lax.stop_gradient(aux)) if has_aux else copies

    def of_parameters(shared, *args, active=None, probe=None):
        probe = _probe.check_probe("branched", rule, num_tasks, probe)
        active = _probe.named_mask(active, names, rule, num_tasks)
        leaves, treedef = jax.tree.flatten((shared, args))
        count = len(jax.tree.leaves(shared))
        is_param = [i < count and _is_floating(leaf) for i, leaf in enumerate(leaves)]
        is_rest = [_is_array(leaf) and not own for leaf, own in zip(leaves, is_param, strict=True)]
        params, rest = _take(leaves, is_param), _take(leaves, is_rest)
        if not params:
            raise ValueError("branched: shared: expected a floating leaf, got none")
        form: list[Any] = []

        def floats_of(params, rest):
            filled = _put(_put(leaves, is_param, params), is_rest, rest)
            shared, args = jax.tree.unflatten(treedef, filled)
            z, aux = encode(shared, *args) if has_aux else (encode(shared, *args), None)
            z_leaves, z_treedef = jax.tree.flatten(z)
            is_float = [_is_floating(leaf) for leaf in z_leaves]
            form[:] = [z_treedef, is_float]
            others = _take(z_leaves, [not own for own in is_float])
            return _take(z_leaves, is_float), (others, aux)

        # What encode closes over would be lost to custom_vjp: it becomes an argument.
        closed_jaxpr, shapes = jax.make_jaxpr(floats_of, return_shape=True)(params, rest)
        out_treedef = jax.tree.structure(shapes)
        z_treedef, is_float = form
        if not any(is_float):
            raise ValueError("branched: z: expected a floating leaf, got none")

        def together(params, rest, closed):
            out = eval_jaxpr(closed_jaxpr.jaxpr, closed, *params, *rest)
            return jax.tree.unflatten(out_treedef, out)

        @jax.custom_vjp
        def layer(params, rest, closed, active, probe):
            floats, extra = together(params, rest, closed)
            return [floats] * num_tasks, extra

        def forward(params, rest, closed, active, probe):
            floats, pull, extra = jax.vjp(together, params, rest, closed, has_aux=True)
            return ([floats] * num_tasks, extra), (pull, active, probe)

        def backward(saved, cotangents):
            pull, active, probe = saved
            dzs = stack(cotangents[0])
            rows = over_tasks(lambda dz: pull(dz)[0], dzs, pullbacks)

            # The weights are the whole batch's; what comes out is each device's, as of any layer.
            def own(_, weights):
                return weighted_sum(rows, weights, active=active)

            combined, state = solve(_summed(rows, axis_name), active, probe, own)
            assert state.task_weights is not None
            _, drest, dclosed = pull(weighted_sum(dzs, state.task_weights, active=active))
            return combined, drest, dclosed, None, _probe.on_board(state)

        layer.defvjp(forward, backward)
        copies, (others, aux) = layer(params, rest, closed_jaxpr.consts, active, probe)
        is_other = [not own for own in is_float]
        blank = [None] * len(is_float)
        filled = [_put(_put(blank, is_float, copy), is_other, others) for copy in copies]
        out = _probe.by_task(names, [jax.tree.unflatten(z_treedef, copy) for copy in filled])
        return (out, aux) if has_aux else out

    if isinstance(pulled, Representation):
        return of_representation
    return of_parameters


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, (jax.Array, np.ndarray, np.generic))


def _is_floating(leaf: Any) -> bool:
    return _is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.inexact)


def _take(leaves: list[Any], chosen: list[bool]) -> list[Any]:
    return [leaf for leaf, is_chosen in zip(leaves, chosen, strict=True) if is_chosen]


def _put(leaves: list[Any], chosen: list[bool], values: list[Any]) -> list[Any]:
    """The leaves with the chosen ones replaced, in order, by the values."""
    left = iter(values)
    pairs = zip(leaves, chosen, strict=True)
    return [next(left) if is_chosen else leaf for leaf, is_chosen in pairs]


def _summed(rows: PyTree, axis_name: Any) -> PyTree:
    """The rows summed over the axis, unless the pullback has done so (shard_map's check_vma)."""
    if axis_name is None:
        return rows
    checks = bool(varying_axes(lax.axis_index(axis_name)))

    def total(leaf):
        return leaf if checks and not varying_axes(leaf) else lax.psum(leaf, axis_name)

    return jax.tree.map(total, rows)
