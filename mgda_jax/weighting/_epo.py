"""EPO: the point of the Pareto set at which the weighed losses are equal."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mgda_jax.solvers.linear_algebra import matvec
from mgda_jax.solvers.linear_program import LPSolution, simplex_program
from mgda_jax.tasks import check_hyperparameter
from mgda_jax.weighting.arguments import check_preference, task_preference
from mgda_jax.weighting.base import Weighting
from mgda_jax.weighting.division import one_for_zero
from mgda_jax.weighting.losses import active_losses, count, raised_losses
from mgda_jax.weighting.origin import rule
from mgda_jax.weighting.unit_gramian import UnitGramian, normalized, unit_gramian

PyTree = Any

# Rows have no more than the largest norm, one, so this bound never binds.
_FREE = -2.0


class EPOReport(NamedTuple):
    """What the last step reported.

    Attributes:
      non_uniformity: () μ, zero where all r_t L_t are equal.
      residual: () by how much a constraint of the linear program is violated, the longest
        gradient being one; above rounding only where rounding left it without a solution.
      steps: () int32 pivots of its solution.
    """

    non_uniformity: jax.Array
    residual: jax.Array
    steps: jax.Array


@rule
def epo(*, preference: PyTree = None, epsilon: float | jax.Array = 1e-4) -> Weighting:
    """Exact Pareto optimal search: descend, with controlled ascent, to where all r_t L_t are equal.

    With l̂ = rL / Σ rL and a_t = r_t (log(T l̂_t) − μ), along Gᵀa the non-uniformity
    μ = Σ_t l̂_t log(T l̂_t) falls. The weights w solve a linear program over the simplex:

        μ > ε (balance): max wᵀMa subject to (Mw)_t ≥ 0 for the largest r_t L_t, (Mw)_t ≥ (Ma)_t
          for the others that Gᵀa ascends; where it ascends all, Mw ≥ 0;
        μ ≤ ε (descent): max wᵀM1 subject to Mw ≥ 0.

    The min-norm point satisfies both, so there always is a solution. (The authors' code
    restricts descent by wᵀMa ≥ min(0, max_t (Ma)_t) where it is not asked to relax it; that
    has none at some points.) A loss may rise while its r_t L_t is not the largest. The solution
    is a vertex: of two losses d is one gradient, or orthogonal to one, and it jumps where μ
    passes ε. Losses count from zero: subtract their lower bounds where you know them.

    Args:
      preference: r > 0, (T,) array, sequence or dict by name; None for equal ones. Divided by
        its sum over the active tasks. May be traced (many under vmap).
      epsilon: ε ≥ 0, of μ, from which on it descends.

    Returns:
      Weighting of scope "all" that reads "gramian" and "losses". NaN where a loss is negative.

    Raises:
      ValueError: an argument out of its range.

    Examples:
      >>> import jax.numpy as jnp
      >>> rule = epo()
      >>> losses = jnp.array([1.0, 4.0])
      >>> rule.update(rule.init(2), gramian=jnp.eye(2), losses=losses)[0]  # the larger alone
      Array([0., 1.], dtype=float32)

    References:
      Mahapatra and Rajan, "Multi-Task Learning with User Preferences: Gradient Descent with
      Controlled Ascent in Pareto Optimization", ICML 2020; ε is that of the authors' code.
    """
    check_preference(preference, "epo", positive=True)
    check_hyperparameter(epsilon, lambda x: x >= 0, "epo: epsilon must be 0 or more")

    def init(num_tasks: int) -> EPOReport:
        del num_tasks
        return EPOReport(jnp.zeros(()), jnp.zeros(()), jnp.zeros((), jnp.int32))

    def update(state, *, gramian, losses, active=None, **_):
        del state
        unit = unit_gramian(gramian, active)
        values, mask = active_losses(losses, active)
        size, dtype = len(values), unit.norms.dtype
        vector = normalized(task_preference(preference, size, dtype, active, "epo"))
        logs = jnp.log(raised_losses(values, mask)).astype(dtype)
        logits = jnp.log(jnp.where(mask, vector, 1)) + logs
        anchor, non_uniformity = anchors(vector, logits, mask)
        worst = mask & (logits == jnp.max(jnp.where(mask, logits, -jnp.inf)))
        balancing = non_uniformity > jnp.asarray(epsilon, dtype)
        solution = _solve(unit, anchor, worst, mask, balancing)
        known = jnp.isfinite(non_uniformity)
        weights = jnp.where(known, solution.x, jnp.nan)
        return weights, EPOReport(non_uniformity, solution.residual, solution.steps)

    return Weighting(init, update, frozenset({"gramian", "losses"}), "all")


def anchors(
    preference: jax.Array, logits: jax.Array, mask: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """a (T,) and μ () from the logarithms of r_t L_t up to a constant."""
    logits = jnp.where(mask, logits, -jnp.inf)
    logits = logits - jnp.where(jnp.any(mask), jnp.max(logits), 0)
    exps = jnp.where(mask, jnp.exp(logits), 0)
    total = one_for_zero(jnp.sum(exps))
    # log(T l̂), T the number of active tasks.
    relative = jnp.where(mask, logits - jnp.log(total) + jnp.log(count(mask, logits.dtype)), 0)
    non_uniformity = jnp.sum(exps / total * relative)
    return jnp.where(mask, preference * (relative - non_uniformity), 0), non_uniformity


def _solve(
    unit: UnitGramian, anchor: jax.Array, worst: jax.Array, mask: jax.Array, balancing: jax.Array
) -> LPSolution:
    """The linear program, each of its rows divided by the norm of its gradient."""
    norms = jnp.where(unit.nonzero, unit.norms, jnp.zeros_like(unit.norms))
    norms = norms / one_for_zero(jnp.max(norms))
    # NaN throughout where anything is, so that none hides in a row that is dropped.
    pairs = unit.nonzero[:, None] & unit.nonzero[None, :] | jnp.isnan(unit.matrix)
    rows = jnp.where(pairs, unit.matrix, 0) * norms[None, :]
    ascent = matvec(rows, anchor)  # (Ma)_t / ‖g_t‖
    gains = norms * ascent  # (Ma)_t
    lowered = ascent > 0
    free = jnp.full_like(ascent, _FREE)
    controlled = jnp.where(worst, 0, jnp.where(lowered, free, jnp.maximum(ascent, free)))
    bounds = jnp.where(balancing & jnp.any(lowered & mask), controlled, 0)
    objective = jnp.where(balancing, gains, norms * jnp.sum(rows, axis=1))
    return simplex_program(objective, rows, bounds, mask)
