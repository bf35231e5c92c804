"""What UPGrad and DualProj share: projections onto the cone that conflicts with no task."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mgda_jax.solvers.box_qp import QPSolution, nonnegative_qp
from mgda_jax.weighting.unit_gramian import UnitGramian


class ConeReport(NamedTuple):
    """What the last projection reported.

    Attributes:
      residual: () largest optimality residual of a projection on unit rows, see
        `mgda_jax.solvers.box_qp.nonnegative_qp`: how far ⟨ĝ_i, d⟩ is below zero, or above
        it where g_i was added, in units of the projected vector.
      regularization: () λ of M + λ·diag(M): 8 eps, more where M is indefinite.
      steps: () int32 factorisations of the slowest projection.
    """

    residual: jax.Array
    regularization: jax.Array
    steps: jax.Array


def init_cone(num_tasks: int) -> ConeReport:
    del num_tasks
    return ConeReport(jnp.zeros(()), jnp.zeros(()), jnp.zeros((), jnp.int32))


def project(unit: UnitGramian, linear: jax.Array) -> QPSolution:
    """The problems over the rows that are there; x_t = 0 for the others."""
    nonzero = jnp.broadcast_to(unit.nonzero[None, :], linear.shape)
    solution = nonnegative_qp(unit.matrix, jnp.where(nonzero, linear, jnp.ones_like(linear)))
    return solution._replace(x=jnp.where(nonzero, solution.x, jnp.zeros_like(linear)))


def report(solution: QPSolution) -> ConeReport:
    return ConeReport(
        jnp.max(solution.residual), jnp.max(solution.regularization), jnp.max(solution.steps)
    )
