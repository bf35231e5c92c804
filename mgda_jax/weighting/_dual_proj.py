"""DualProj: a weighted sum projected onto the cone of directions that conflict with no task."""

from typing import Any

import jax.numpy as jnp

from mgda_jax.solvers.linear_algebra import matvec
from mgda_jax.weighting.arguments import check_preference, check_reduction, preference_vector
from mgda_jax.weighting.base import Weighting
from mgda_jax.weighting.cone import init_cone, project, report
from mgda_jax.weighting.division import one_for_zero
from mgda_jax.weighting.origin import rule
from mgda_jax.weighting.unit_gramian import normalized, unit_gramian

PyTree = Any


@rule
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
        peak = one_for_zero(jnp.max(lower))
        linear = matvec(unit.matrix, lower / peak)
        solution = project(unit, linear[None, :])
        return share + peak * solution.x[0] / unit.norms, report(solution)

    return Weighting(init_cone, update)
