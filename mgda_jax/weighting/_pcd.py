"""PCD: follow a primary task, bent just enough for the others to make progress."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mgda_jax.solvers.box_qp import nonnegative_qp
from mgda_jax.tasks import check_hyperparameter, check_int, task_vector
from mgda_jax.weighting.arguments import active_mask, check_each
from mgda_jax.weighting.base import Weighting
from mgda_jax.weighting.division import one_for_zero
from mgda_jax.weighting.origin import rule
from mgda_jax.weighting.unit_gramian import UnitGramian, unit_gramian

PyTree = Any


class PCDReport(NamedTuple):
    """What the last quadratic program reported.

    Attributes:
      feasible: () bool, whether the constraints had a common solution.
      residual: () optimality residual, see `mgda_jax.solvers.box_qp.nonnegative_qp`.
    """

    feasible: jax.Array
    residual: jax.Array


class PCDState(NamedTuple):
    """State of `pcd`.

    Attributes:
      norms: (T,) √v̂, the root mean square of each gradient's norm, bias-corrected.
      counts: (T,) int32, updates in which the task was active.
      report: of the last step.
    """

    norms: jax.Array
    counts: jax.Array
    report: PCDReport


@rule
def pcd(
    *,
    primary: int = 0,
    tau: float | jax.Array | PyTree = 0.02,
    beta: float | jax.Array = 0.999,
) -> Weighting:
    """PCD: the direction closest to the primary gradient on which every other task progresses.

    With g̃_t = g_t/√v̂_t, v̂_t the bias-corrected moving average of ‖g_t‖² with decay β,
    and p the primary task,

        d̃ = argmin ½‖d − g̃_p‖² subject to ⟨g̃_t, d⟩ ≥ τ‖g̃_t‖² for every t ≠ p,

    d = ‖g_p‖ d̃/‖d̃‖. So τ is the fraction of the progress that a task would make
    along its own normalised gradient. Where no d satisfies all the constraints
    (multipliers beyond eps^{−½} on unit rows count as none) they are dropped and
    d = g_p. d = 0 where g_p = 0 or d̃ vanishes to rounding, and where the primary task
    is not active. The authors' 1e-8 beside v̂ is left out: nothing here is absolute.

    Args:
      primary: p, the index of the primary task.
      tau: τ in [0, 1], a scalar or one per task ((T,) array, sequence or dict of named
        scalars; the primary's entry is not looked at).
      beta: β in [0, 1).

    Returns:
      Weighting of scope "shared" that reads "gramian".

    Raises:
      ValueError: a concrete τ or β out of its range, a primary that is no task.

    Examples:
      >>> import jax.numpy as jnp
      >>> rows = jnp.array([[1.0, 0.0], [-1.0, 1.0]])
      >>> rule = pcd(tau=0.0)
      >>> weights, _ = rule.update(rule.init(2), gramian=rows @ rows.T)
      >>> (weights @ rows).round(4)  # as long as the first gradient, orthogonal to the second
      Array([0.7071, 0.7071], dtype=float32)

    References:
      Varam and AlHajri, "Not All Objectives Are Born Equal: Priority-Constrained
      Descent for Hierarchical Multi-Objective Optimization", TMLR 2026, Algorithm 1.
    """
    primary = check_int(primary, lambda n: n >= 0, "pcd: primary must be the index of a task")
    check_each(tau, lambda x: (x >= 0) & (x <= 1), "pcd: tau must be in [0, 1]")
    check_hyperparameter(beta, lambda x: 0 <= x < 1, "pcd: beta must be in [0, 1)")

    def init(num_tasks: int) -> PCDState:
        if primary >= num_tasks:
            raise ValueError(f"pcd: primary must be one of {num_tasks} tasks, got {primary}")
        counts = jnp.zeros(num_tasks, jnp.int32)
        report = PCDReport(jnp.ones((), bool), jnp.zeros(()))
        return PCDState(jnp.zeros(num_tasks), counts, report)

    def update(state, *, gramian, active=None, **_):
        unit = unit_gramian(gramian, active)
        num_tasks, dtype = len(unit.norms), unit.norms.dtype
        mask = active_mask(active, num_tasks)
        fraction = tau
        if isinstance(tau, (dict, list, tuple)) or jnp.ndim(tau) == 1:
            fraction = task_vector(tau, num_tasks, "pcd: tau")
        fraction = jnp.broadcast_to(jnp.asarray(fraction, dtype), (num_tasks,))

        size = jnp.where(unit.nonzero, unit.norms, jnp.zeros_like(unit.norms))
        true_norms = jnp.ldexp(size, unit.exponent)
        counts = jnp.where(mask, state.counts + 1, state.counts)
        average = _average(state.norms.astype(dtype), true_norms, counts, beta)
        average = jnp.where(mask, average, state.norms.astype(dtype))
        lengths = true_norms / one_for_zero(average)  # ‖g̃_t‖

        extra, feasible, residual = _multipliers(unit, lengths, fraction, primary)
        own = (jnp.arange(num_tasks) == primary).astype(dtype)
        shares = own * lengths[primary] + jnp.where(feasible, extra, jnp.zeros_like(extra))
        square = jnp.vdot(shares, jnp.matmul(unit.matrix, shares, precision="highest"))
        vanished = square <= 16 * jnp.finfo(dtype).eps * jnp.sum(jnp.abs(shares)) ** 2
        halts = vanished | (~unit.nonzero[primary] & ~jnp.isnan(square))
        scale = unit.norms[primary] / jnp.sqrt(jnp.where(halts, jnp.ones_like(square), square))
        weights = jnp.where(halts, jnp.zeros_like(shares), shares * scale / unit.norms)
        return weights, PCDState(average, counts, PCDReport(feasible, residual))

    return Weighting(init, update)


def _multipliers(unit: UnitGramian, lengths: jax.Array, fraction: jax.Array, primary: int):
    """ν ≥ 0 with d̃ = g̃_p + Σ ν_t u_t, whether the constraints are feasible, the residual."""
    dtype = lengths.dtype
    secondary = unit.nonzero & (jnp.arange(len(lengths)) != primary)
    pairs = secondary[:, None] & secondary[None, :]
    matrix = jnp.where(pairs, unit.matrix, jnp.eye(len(lengths), dtype=dtype))
    slack = unit.matrix[primary] * lengths[primary] - fraction * lengths
    peak = one_for_zero(jnp.max(lengths))
    linear = jnp.where(secondary, slack / peak, jnp.ones_like(slack))
    # NaN in the Gramian may hide in rows that are masked here.
    linear = linear + jnp.where(jnp.isnan(unit.matrix[0, 0]), jnp.nan, jnp.zeros((), dtype))
    solution = nonnegative_qp(matrix, linear[None, :])
    multipliers = jnp.where(secondary, solution.x[0], jnp.zeros_like(linear))
    feasible = ~(jnp.max(multipliers) > jnp.finfo(dtype).eps ** -0.5)
    return peak * multipliers, feasible, solution.residual[0]


def _average(last: jax.Array, norms: jax.Array, counts: jax.Array, beta) -> jax.Array:
    """√ of the bias-corrected average of squares, without squaring.

    v̂_k = ((1 − β^{k−1}) β v̂_{k−1} + (1 − β) n²) / (1 − β^k).
    """
    dtype = norms.dtype
    rate = jnp.asarray(beta, dtype)
    steps = counts.astype(dtype)
    total = jnp.maximum(1 - rate**steps, jnp.finfo(dtype).tiny)
    old = rate * (1 - rate ** jnp.maximum(steps - 1, 0)) / total
    return jnp.hypot(jnp.sqrt(old) * last, jnp.sqrt((1 - rate) / total) * norms)
