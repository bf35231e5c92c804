"""MGDA-UB as a layer: one copy of a representation per task, combined in the backward pass."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mgda_jax import _probe
from mgda_jax._combine import combine, common
from mgda_jax._gramian import gramian
from mgda_jax.mapped_axis import sum_over_axis
from mgda_jax.weighting.base import Weighting
from mgda_jax.weighting.state import AggregateState

PyTree = Any


def branch(
    z: PyTree,
    tasks: _probe.Tasks,
    weighting: Weighting | None = None,
    *,
    active: PyTree = None,
    probe: AggregateState | None = None,
    axis_name: Any = None,
    stacked: bool = False,
) -> Any:
    """One copy of z per task whose gradients a rule combines: MGDA-UB in one line of a model.

    Forward every copy is z. Backward the cotangents ∂L_t/∂z of the copies become
    Σ_t w_t ∂L_t/∂z, with w from the rule on their Gramian, so that `jax.grad` of the
    plain sum of the losses gives the encoder the combined gradient and every head its
    own, unscaled (Algorithm 2 of the paper). Loss t must reach z through copy t only.

    The rows are what the loss makes of them: of c·L_t the row is c ∂L_t/∂z. A copy that
    no loss reads is a zero row, which takes all of MGDA's weight: a task without a loss
    in this step is left out by `active`, never by a zero loss. To further
    differentiation the weights are constants.

    Args:
      z: pytree of arrays; leaves that are not floating or complex are passed on as they are.
      tasks: T, a static int, or the tasks' names (sorted, as JAX sorts a dict).
      weighting: a `Weighting` that reads the Gramian or nothing; `min_norm()` by default.
      active: (T,) bool (or a dict by name): inactive tasks get no weight, and a NaN in
        their cotangent stays out. Their heads see what the loss sends them.
      probe: where to report: `branch_probe(tasks, weighting)`, an argument of the
        function that is differentiated; its cotangent is the `AggregateState` after this
        step. A rule that keeps state needs it, each step the cotangent of the last.
      axis_name: the mapped axis (or axes) over which the examples of z are spread, in
        `shard_map`, `pmap` or a `vmap` over examples: the Gramian is summed over it.
      stacked: return z with leaves (T, *shape), for heads under `vmap` or `einsum`.

    Returns:
      A tuple of T copies; a dict by name where names are given; z stacked with `stacked`.

    Raises:
      ValueError: a rule that reads losses or rows (the message names the entrance that
        takes it), a rule with state and no probe, a probe of another rule, no floating
        leaf in z.

    Examples:
      >>> def loss(z):
      ...     left, right = branch(z, 2)
      ...     return left[0] + 2 * right[1]  # gradients (1, 0) and (0, 2)
      >>> jax.grad(loss)(jnp.zeros(2))
      Array([0.8, 0.4], dtype=float32)

    References:
      Sener and Koltun, "Multi-Task Learning as Multi-Objective Optimization",
      NeurIPS 2018, section 3.3 (MGDA-UB).
    """
    names, num_tasks = _probe.names_and_count("branch", tasks)
    rule = _probe.check_rule("branch", weighting)
    probe = _probe.check_probe("branch", rule, num_tasks, probe)
    active = _probe.named_mask(active, names, rule, num_tasks)
    leaves, treedef = jax.tree.flatten(z)
    floating = [jnp.issubdtype(jnp.result_type(leaf), jnp.inexact) for leaf in leaves]
    if not any(floating):
        dtypes = [str(jnp.result_type(leaf)) for leaf in leaves]
        raise ValueError(f"branch: z: expected a floating leaf, got dtypes {dtypes}")
    split = [jnp.asarray(leaf) for leaf, is_float in zip(leaves, floating, strict=True) if is_float]
    copies = _copies(Solve(rule, num_tasks, axis_name), stacked, split, active, probe)

    def whole(floats):
        floats, out = iter(floats), []
        for leaf, is_float in zip(leaves, floating, strict=True):
            rest = jnp.stack([leaf] * num_tasks) if stacked and not is_float else leaf
            out.append(next(floats) if is_float else rest)
        return jax.tree.unflatten(treedef, out)

    if stacked:
        return whole(copies)
    return _probe.by_task(names, [whole(copies[task]) for task in range(num_tasks)])


class Solve(NamedTuple):
    """Rows → their combination and the report, inside a backward pass."""

    rule: Weighting
    num_tasks: int
    axis_name: Any

    def __call__(
        self,
        rows: PyTree,
        active: jax.Array | None,
        probe: AggregateState,
        total: Callable[[PyTree, jax.Array], PyTree] | None = None,
    ) -> tuple[PyTree, AggregateState]:
        """Σ_t w_t g_t (or total), and the rule's state before it travels as a cotangent."""

        def form(rows):
            gram = jax.lax.stop_gradient(gramian(rows, active=active))
            gram = gram if self.axis_name is None else sum_over_axis(gram, self.axis_name)
            return common(gram, probe)

        state = _probe.off_board(probe, self.rule, self.num_tasks)
        return combine(
            self.rule,
            state,
            rows,
            num_tasks=self.num_tasks,
            active=active,
            form=form,
            total=total,
        )


def stack(trees: list[PyTree]) -> PyTree:
    """One tree with leaves (T, *shape) from T trees."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _repeat(solve: Solve, stacked: bool, leaves: list, active: Any, probe: Any) -> list[Any]:
    del active, probe
    if stacked:
        return [jnp.broadcast_to(leaf, (solve.num_tasks, *leaf.shape)) for leaf in leaves]
    return [leaves] * solve.num_tasks


def _forward(solve, stacked, leaves, active, probe):
    # Not _copies: a second derivative adds up what comes back, it does not weigh it.
    return _repeat(solve, stacked, leaves, active, probe), (active, probe)


def _backward(solve, stacked, saved, cotangents):
    active, probe = saved
    rows = cotangents if stacked else stack(cotangents)
    combined, state = solve(rows, active, probe)
    return combined, None, _probe.on_board(state)


_copies = jax.custom_vjp(_repeat, nondiff_argnums=(0, 1))
_copies.defvjp(_forward, _backward)
