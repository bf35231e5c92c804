"""UPGrad: the sum of the gradients, each projected onto the cone that conflicts with no task."""

from typing import Any

import jax.numpy as jnp

from mgda_jax.weighting.arguments import check_preference, check_reduction, preference_vector
from mgda_jax.weighting.base import Weighting
from mgda_jax.weighting.cone import init_cone, project, report
from mgda_jax.weighting.origin import rule
from mgda_jax.weighting.unit_gramian import normalized, unit_gramian

PyTree = Any


@rule
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
        solution = project(unit, unit.matrix)
        # π(g_t) = g_t + ‖g_t‖ Σ_j x_tj g_j/‖g_j‖.
        added = jnp.matmul(share * unit.norms, solution.x, precision="highest") / unit.norms
        return share + added, report(solution)

    return Weighting(init_cone, update)
