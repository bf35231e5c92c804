"""UPGrad and DualProj: projections onto the cone of directions that conflict with no task."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mgda_jax.box_qp import QPSolution, nonnegative_qp
from mgda_jax.min_norm.solution import matvec
from mgda_jax.weighting.base import Weighting
from mgda_jax.weighting.positive import check_reduction
from mgda_jax.weighting.unit_gramian import (
    UnitGramian,
    check_preference,
    normalized,
    preference_vector,
    unit_gramian,
)

PyTree = Any


class ConeProjectionState(NamedTuple):
    """What the last projection reported.

    Attributes:
      residual: () largest optimality residual of a projection on unit rows, see
        `mgda_jax.box_qp.nonnegative_qp`: how far ⟨ĝ_i, d⟩ is below zero, or above
        it where g_i was added, in units of the projected vector.
      regularization: () λ of M + λ·diag(M), a few eps.
      steps: () int32 factorisations of the slowest projection.
    """

    residual: jax.Array
    regularization: jax.Array
    steps: jax.Array


def upgrad(*, preference: PyTree = None, reduction: str = "mean") -> Weighting:
    """UPGrad: the average of the task gradients, each projected so that it conflicts with no task.

    d = Σ_t c_t π(g_t), π the projection onto the cone {d : Gd ≥ 0}:
    π(g_t) = Gᵀv_t with v_t = argmin vᵀMv subject to v ≥ e_t. So ⟨g_i, d⟩ ≥ 0 for
    every i up to rounding: ⟨g_i, d⟩ ≥ −tol·‖g_i‖·Σ_j w_j‖g_j‖. The T problems
    are solved together on unit rows, so norms of any spread are as good as
    equal ones. d is unique; where M is singular the weights are up to rounding
    the shortest (in unit rows) that give it. A zero gradient has the weight c_t.

    Args:
      preference: c, (T,) array, sequence or dict of named scalars ≥ 0; ones by
        default.
      reduction: "mean" divides c by its sum over the active tasks (the paper's
        rule), "sum" takes c as it is. With "sum" and two tasks this is PCGrad.

    Returns:
      Weighting of scope "shared" that reads "gramian".

    Raises:
      ValueError: another reduction; a concrete preference that is negative, not
        finite or all zero; at update, one of another length.

    Examples:
      >>> import jax.numpy as jnp
      >>> rows = jnp.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
      >>> rule = upgrad()
      >>> weights, _ = rule.update(rule.init(2), gramian=rows @ rows.T)
      >>> jnp.round(weights @ rows, 4)
      Array([0.2924, 1.9006, 1.9006], dtype=float32)

    References:
      Quinton and Rey, "Jacobian Descent for Multi-Objective Optimization", 2024,
      Definition 3 and Proposition 1.
    """
    check_reduction(reduction, "upgrad")
    check_preference(preference, "upgrad")

    def update(state, *, gramian, active=None, **_):
        del state
        unit = unit_gramian(gramian, active)
        share = preference_vector(preference, unit, active, "upgrad")
        share = normalized(share) if reduction == "mean" else share
        solution = _project(unit, unit.matrix)
        # π(g_t) = g_t + ‖g_t‖ Σ_j x_tj g_j/‖g_j‖.
        added = jnp.matmul(share * unit.norms, solution.x, precision="highest") / unit.norms
        return share + added, _report(solution)

    return Weighting(_init, update)


def dual_proj(*, preference: PyTree = None, reduction: str = "mean") -> Weighting:
    """DualProj: the mean gradient, projected so that it conflicts with no task.

    d = π(Σ_t c_t g_t), the nearest vector with Gd ≥ 0: d = Gᵀv with
    v = argmin vᵀMv subject to v ≥ c. Solved as in `upgrad`, with the same
    guarantee and the same answer for zero rows and singular M.

    Args:
      preference: c, (T,) array, sequence or dict of named scalars ≥ 0; ones by
        default.
      reduction: "mean" divides c by its sum over the active tasks, "sum" takes
        it as it is.

    Returns:
      Weighting of scope "shared" that reads "gramian".

    Raises:
      ValueError: as `upgrad`.

    Examples:
      >>> import jax.numpy as jnp
      >>> rows = jnp.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
      >>> rule = dual_proj()
      >>> weights, _ = rule.update(rule.init(2), gramian=rows @ rows.T)
      >>> jnp.round(weights @ rows, 4)
      Array([0.5556, 1.1111, 1.1111], dtype=float32)

    References:
      Lopez-Paz and Ranzato, "Gradient Episodic Memory for Continual Learning",
      NeurIPS 2017, Section 3; the name is that of Quinton and Rey, 2024.
    """
    check_reduction(reduction, "dual_proj")
    check_preference(preference, "dual_proj")

    def update(state, *, gramian, active=None, **_):
        del state
        unit = unit_gramian(gramian, active)
        share = preference_vector(preference, unit, active, "dual_proj")
        share = normalized(share) if reduction == "mean" else share
        lower = share * unit.norms
        peak = jnp.max(lower)
        peak = jnp.where(peak == 0, jnp.ones_like(peak), peak)
        linear = matvec(unit.matrix, lower / peak)
        solution = _project(unit, linear[None, :])
        return share + peak * solution.x[0] / unit.norms, _report(solution)

    return Weighting(_init, update)


def _init(num_tasks: int) -> ConeProjectionState:
    del num_tasks
    return ConeProjectionState(jnp.zeros(()), jnp.zeros(()), jnp.zeros((), jnp.int32))


def _project(unit: UnitGramian, linear: jax.Array) -> QPSolution:
    """The problems over the rows that are there; x_t = 0 for the others."""
    nonzero = jnp.broadcast_to(unit.nonzero[None, :], linear.shape)
    solution = nonnegative_qp(unit.matrix, jnp.where(nonzero, linear, jnp.ones_like(linear)))
    return solution._replace(x=jnp.where(nonzero, solution.x, jnp.zeros_like(linear)))


def _report(solution: QPSolution) -> ConeProjectionState:
    return ConeProjectionState(
        jnp.max(solution.residual), jnp.max(solution.regularization), jnp.max(solution.steps)
    )
