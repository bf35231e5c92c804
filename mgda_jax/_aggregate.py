"""Weighting → optax transformation: T stacked gradients in, one update out."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from mgda_jax import partition
from mgda_jax._combine import combine
from mgda_jax._gramian import Gramian, as_gramian
from mgda_jax._own import scale_own
from mgda_jax.solvers.min_norm import Method
from mgda_jax.stacked_shapes import Shapes, check_shapes, shapes_of
from mgda_jax.tasks import check_names, check_num_tasks, path_name, stack_losses, task_mask
from mgda_jax.weighting._min_norm import Normalization, min_norm
from mgda_jax.weighting.base import RowRule, Scope, Weighting
from mgda_jax.weighting.origin import named_arguments
from mgda_jax.weighting.state import AggregateState, check_rule, check_state, init_state

PyTree = Any


def aggregate(
    weighting: Weighting | RowRule,
    num_tasks: int,
    shared: PyTree = None,
    *,
    scope: Scope | None = None,
    owner: PyTree = None,
    axis_name: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """An optax transformation that combines stacked per-task gradients by a rule.

    d = Σ_t w_t g_t with w from the rule; the Gramian is that of the shared leaves.
    It comes first in a chain: whatever keeps state per parameter (Adam), clips or
    decays weights goes after it. `optax.MultiSteps` and `optax.apply_if_finite`
    cannot wrap it, because they expect updates of the parameters' shapes: average
    the stacked gradients over microbatches, and use
    `chain(aggregate(...), apply_if_finite(adam(...)))`.

    Args:
      weighting: a `Weighting` or `RowRule`.
      num_tasks: T, a static int.
      shared: which leaves arrive stacked, as (T, *shape): None for all, a prefix
        of the parameters with bools, or a predicate on a leaf's path
        ("encoder/kernel"). The other leaves arrive parameter-shaped (each head's
        own gradient) and pass through.
      scope: "shared" or "all", instead of the rule's own. "all" also scales own
        leaves, each by its task's weight.
      owner: the task index of every own leaf, as a prefix of the parameters or a
        function of the path; needed where own leaves are to be scaled.
      axis_name: the mapped axis (or axes) over which the examples are spread, in `shard_map`,
        `pmap` or `vmap`: gradients and losses are averaged over it before the Gramian is
        formed, which is quadratic. A gramian that is given is taken as it is. (What
        shard_map's check_vma has summed stays the sum: `task_gradients` can tell.)

    Returns:
      GradientTransformationExtraArgs whose `update(updates, state, params=None, *,
      losses=None, active=None, gramian=None, key=None)` takes losses (T,) (array,
      tuple or dict of scalars) where the rule reads them; active (T,) bool, the
      tasks that count in this step; gramian, a `Gramian` or array (T, T) computed
      elsewhere; key, a PRNG key for rules that draw. The state is an `AggregateState`.

    Raises:
      ValueError: at construction for a bad argument; at update for a leaf of the
        wrong shape, which optax would broadcast in silence, naming its path. Where
        update is not given the parameters, their shapes are those of init.

    Examples:
      >>> import jax.numpy as jnp, optax
      >>> tx = optax.chain(aggregate(min_norm(), num_tasks=2), optax.sgd(1.0))
      >>> params = {"w": jnp.zeros(3)}
      >>> grads = {"w": jnp.array([[-4.0, 1.0, 1.0], [4.0, 1.0, 1.0]])}
      >>> updates, state = tx.update(grads, tx.init(params), params)
      >>> optax.apply_updates(params, updates)
      {'w': Array([ 0., -1., -1.], dtype=float32)}
      >>> optax.tree.get(state, "task_weights")
      Array([0.5, 0.5], dtype=float32)
    """
    num_tasks = check_num_tasks(num_tasks, "aggregate")
    scope = check_rule(weighting, scope)
    # Shapes of the parameters met in init: what tells T rows from a gradient of one row
    # whose first axis happens to be T, where update is not given the parameters.
    met: list[Shapes] = []

    def init(params: PyTree) -> Any:
        mask = partition.shared_mask(shared, params)
        shapes = shapes_of(params)
        if shapes not in met:
            met.append(shapes)
        return init_state(weighting, num_tasks, _rows(params, mask, shared))

    def update(
        updates: PyTree,
        state: Any,
        params: PyTree | None = None,
        *,
        losses: PyTree = None,
        active: PyTree = None,
        gramian: Any = None,
        key: jax.Array | None = None,
        **extra: Any,
    ) -> tuple[Any, Any]:
        check_state(weighting, state, num_tasks)
        if axis_name is not None:
            updates, losses = jax.tree.map(_mean_over(axis_name), (updates, losses))
        mask = partition.shared_mask(shared, updates)
        candidates = met if params is None else [shapes_of(params)]
        check_shapes(updates, candidates, mask, num_tasks)
        own_task = partition.owners(owner, updates, mask, num_tasks)
        rows, own = _rows(updates, mask, shared), partition.split(updates, mask)[1]
        names = {"losses": losses, "previous_losses": extra.get("previous_losses")}
        check_names({**names, "active": active, **named_arguments(weighting)})
        active = task_mask(active, num_tasks)
        losses = None if losses is None else stack_losses(losses, num_tasks)
        form = None if gramian is None else lambda _: _given(gramian, num_tasks)
        combined, state = combine(
            weighting,
            state,
            rows,
            num_tasks=num_tasks,
            form=form,
            losses=losses,
            active=active,
            key=key,
            **extra,
        )
        weights = state.task_weights if scope == "all" else None
        own = _own_updates(own, updates, mask, own_task, weights, active)
        return partition.merge(jax.tree.structure(updates), combined, own, mask), state

    return optax.GradientTransformationExtraArgs(init, update)


def mgda(
    num_tasks: int,
    *,
    shared: PyTree = None,
    normalization: Normalization = "none",
    method: Method = "exact",
    axis_name: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """Multiple gradient descent as an optax transformation: chain it before the optimiser.

    d = argmin { ‖u‖² : u in the convex hull of the task gradients }. It is zero at
    a Pareto-stationary point and otherwise satisfies ⟨d, g_t⟩ ≥ ‖d‖² > 0 for
    every task. An optimiser after it that rescales coordinates (Adam's first step
    is sign(d)) does not keep that guarantee; SGD does.

    The shortest gradient gets the most weight: with losses of unequal units, or a task
    nearly solved, one weight goes to 1 and training stands still at the nearest
    Pareto-stationary point. Then hand `aggregate` another rule: `cagrad` or `upgrad`, which
    keep a share for every task, or `nash_mtl`, which does not see the losses' units. A loss
    that does not depend on the parameters, or whose gradient is stopped, is the extreme:
    its zero gradient takes all the weight. `diagnostics` shows both, in `norms` and
    `stationarity`.

    What stands before it in a chain sees the T gradients stacked, and nothing can tell that
    this was not meant: `optax.clip_by_global_norm` clips by the norm of all of them
    together, `optax.clip` bends each of them. Clip after it.

    Args:
      num_tasks: T, a static int.
      shared: which leaves arrive stacked as (T, *shape), see `aggregate`.
      normalization: "none", "l2", "loss" or "loss+", see `weighting.min_norm`; the
        loss modes need `losses=` in update.
      method: "exact" or "frank_wolfe".
      axis_name: as in `aggregate`.

    Returns:
      GradientTransformationExtraArgs with an `AggregateState`.

    Raises:
      ValueError: as in `aggregate` and `weighting.min_norm`.

    Examples:
      >>> import jax.numpy as jnp, optax
      >>> tx = optax.chain(mgda(num_tasks=2), optax.adam(1e-3))
      >>> state = tx.init({"w": jnp.zeros(3)})

    References:
      Sener and Koltun, "Multi-Task Learning as Multi-Objective Optimization",
      NeurIPS 2018.
    """
    rule = min_norm(normalization=normalization, method=method)
    return aggregate(rule, num_tasks, shared, axis_name=axis_name)


def aggregate_states(opt_state: PyTree) -> tuple[AggregateState, ...]:
    """Every `AggregateState` inside an optimiser's state, found by type.

    `optax.tree.get(opt_state, "task_weights")` does for one; this one also serves
    when there are several, and through any wrapper.

    Args:
      opt_state: any pytree.

    Returns:
      Tuple of AggregateState, in the order of the pytree; empty when there is none.

    Examples:
      >>> import jax.numpy as jnp, optax
      >>> tx = optax.chain(mgda(num_tasks=3), optax.adam(1e-3))
      >>> [s.task_weights.shape for s in aggregate_states(tx.init(jnp.zeros(4)))]
      [(3,)]
    """
    nodes = jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, AggregateState))
    return tuple(node for node in nodes if isinstance(node, AggregateState))


def _rows(tree: PyTree, mask: list[bool], shared: PyTree) -> PyTree:
    """What rules see: the whole tree, or a list of its shared leaves where some may be own."""
    return tree if shared is None else partition.split(tree, mask)[0]


def _mean_over(axis_name: Any) -> Any:
    def mean(leaf):
        is_float = jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)
        return jax.lax.pmean(leaf, axis_name) if is_float else leaf

    return mean


def _given(gramian: Any, num_tasks: int) -> Gramian:
    given = as_gramian(gramian)
    if given.matrix.shape != (num_tasks, num_tasks):
        raise ValueError(
            f"gramian: expected shape ({num_tasks}, {num_tasks}), got {given.matrix.shape}"
        )
    return given


def _own_updates(own, updates, mask, own_task, weights, active):
    """`scale_own` of the own leaves; as they are where nothing says whose they are."""
    paths = [path_name(path) for path, _ in jax.tree_util.tree_flatten_with_path(updates)[0]]
    own_paths = partition.split(paths, mask)[1]
    tasks = [task for task, is_shared in zip(own_task, mask, strict=True) if not is_shared]
    out = []
    for path, task, leaf in zip(own_paths, tasks, own, strict=True):
        if weights is not None and task is None:
            raise ValueError(
                f"gradients at '{path}': this rule weighs whole losses (scope 'all'), so an "
                "own leaf needs its task: give owner=, or stack it like a shared leaf, or "
                "set scope='shared'"
            )
        out.append(leaf if task is None else scale_own(leaf, task, weights, active))
    return out
