"""CAGrad: the least gain, maximised in a ball around the mean gradient."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mgda_jax.solvers.box_qp import nonnegative_qp
from mgda_jax.solvers.linear_algebra import dot, matvec
from mgda_jax.tasks import check_hyperparameter
from mgda_jax.weighting.arguments import (
    active_mask,
    check_choice,
    check_preference,
    preference_vector,
)
from mgda_jax.weighting.base import Weighting
from mgda_jax.weighting.division import one_for_zero
from mgda_jax.weighting.origin import rule
from mgda_jax.weighting.unit_gramian import UnitGramian, normalized, unit_gramian

PyTree = Any

_RESCALES = ("none", "1+c", "1+c^2")
_MAX_LEVELS = 24


class CAGradReport(NamedTuple):
    """What the last solve reported.

    Attributes:
      residual: () largest violation of the optimality conditions on unit rows
        with ‖g_0‖ = 1, relative to 1 + ‖y‖, see `cagrad`.
      regularization: () λ of M + λ·diag(M): 8 eps, more where M is indefinite.
      steps: () int32 factorisations, of all levels together.
    """

    residual: jax.Array
    regularization: jax.Array
    steps: jax.Array


class _Search(NamedTuple):
    level: jax.Array  # t, the next to try
    low: jax.Array  # radius ≤ c there
    high: jax.Array
    y: jax.Array
    y_zero: jax.Array  # that of level zero
    residual: jax.Array
    regularization: jax.Array
    steps: jax.Array
    count: jax.Array
    done: jax.Array


@rule
def cagrad(
    *,
    c: float | jax.Array = 0.4,
    preference: PyTree = None,
    rescale: str = "none",
) -> Weighting:
    """CAGrad: the direction near the mean gradient on which the worst-off task gains most.

    d = argmax min_t ⟨g_t, d⟩ subject to ‖d − g_0‖ ≤ c‖g_0‖, g_0 = Σ b_t g_t, b = 1/T.
    So d = g_0 + c‖g_0‖ g_w/‖g_w‖ with g_w = Σ w_t g_t, w the minimiser over the
    simplex of ⟨g_w, g_0⟩ + c‖g_0‖‖g_w‖.

    Solved by its one-dimensional dual: for a level t the nearest point to g_0 with
    ⟨g_i, d⟩ ≥ t for every i is g_0 + Σ y_i g_i, y the minimiser of a quadratic
    program over y ≥ 0. Its distance from g_0 is a convex increasing function of t,
    and Newton's method finds the t at which it is c‖g_0‖.

    Where the largest possible t is reached inside the ball (there w has g_w = 0:
    some rows balance to zero, or one is zero, while g_0 does not vanish), the
    formula with w leaves d open; this takes the d nearest to g_0 of those with
    that t, the projection of g_0 that `dual_proj` takes. It is the limit of
    M + λ·diag(M), and λ = 8 eps decides which case it is. c = 0 is the mean.

    Args:
      c: radius in units of ‖g_0‖, ≥ 0; below 1 the iteration converges to a
        minimum of the mean loss.
      preference: b up to its sum, (T,) array, sequence or dict of named scalars
        ≥ 0; ones by default.
      rescale: "none" is the paper's direction; "1+c^2" divides by 1 + c² as the
        public code does by default; "1+c" is that code's other option. (That code then
        multiplies by T, to be as long as the gradient of the sum.)

    Returns:
      Weighting of scope "shared" that reads "gramian".

    Raises:
      ValueError: a concrete c that is negative or not finite, another rescale; a
        concrete preference that is negative, not finite or all zero; at update,
        one of another length.

    Examples:
      >>> import jax.numpy as jnp
      >>> rows = jnp.array([[1.0, 0.0], [0.0, 1.0]])
      >>> rule = cagrad(c=0.5)
      >>> weights, _ = rule.update(rule.init(2), gramian=rows @ rows.T)
      >>> jnp.round(weights, 4)
      Array([0.75, 0.75], dtype=float32)

    References:
      Liu et al., "Conflict-Averse Gradient Descent for Multi-task Learning",
      NeurIPS 2021, Algorithm 1.
    """
    check_hyperparameter(c, lambda x: 0 <= x < float("inf"), "cagrad: c must be >= 0 and finite")
    check_preference(preference, "cagrad")
    check_choice(rescale, _RESCALES, "cagrad: rescale")

    def init(num_tasks: int) -> CAGradReport:
        del num_tasks
        return CAGradReport(jnp.zeros(()), jnp.zeros(()), jnp.zeros((), jnp.int32))

    def update(state, *, gramian, active=None, **_):
        del state
        unit = unit_gramian(gramian, active)
        share = normalized(preference_vector(preference, unit, active, "cagrad"))
        radius = jnp.asarray(c, share.dtype)
        has_zero_row = jnp.any(active_mask(active, len(unit.norms)) & ~unit.nonzero)
        mean = jnp.where(unit.nonzero, share * unit.norms, jnp.zeros_like(share))
        gains = matvec(unit.matrix, mean)
        length = jnp.sqrt(jnp.maximum(dot(mean, gains), 0))
        cosines = jnp.clip(gains / one_for_zero(length), -1, 1)
        end = _search(unit, cosines, radius, has_zero_row)
        weights = share + length * end.y / unit.norms
        if rescale != "none":
            weights = weights / (1 + (radius if rescale == "1+c" else radius * radius))
        return weights, CAGradReport(end.residual, end.regularization, end.steps)

    return Weighting(init, update)


@jax.jit
def _search(unit: UnitGramian, cosines, radius, has_zero_row) -> _Search:
    """The y of the level whose nearest point is `radius` away from g_0, ‖g_0‖ = 1."""
    eps = jnp.finfo(cosines.dtype).eps
    tolerance = 8 * eps
    infinity = jnp.full_like(cosines, jnp.inf)
    zero = jnp.zeros_like(cosines)
    # ⟨g_i, d⟩ ≥ t is ⟨ĝ_i, d⟩ ≥ t·slope_i in units of the shortest row.
    shortest = jnp.min(jnp.where(unit.nonzero, unit.norms, infinity))
    slope = jnp.where(unit.nonzero, shortest / unit.norms, zero)
    safe = jnp.where(unit.nonzero, slope, jnp.ones_like(slope))
    low = jnp.min(jnp.where(unit.nonzero, cosines / safe, infinity))
    high = jnp.min(jnp.where(unit.nonzero, (cosines + radius) / safe, infinity))
    # A zero row never gains, nor does any task when there is no row.
    capped = has_zero_row | ~jnp.any(unit.nonzero)
    high = jnp.where(capped, jnp.minimum(high, 0), high)
    low = jnp.minimum(low, high)
    # Level zero, DualProj's, is always attainable and a higher one may not be.
    level = jnp.where((low < 0) & (high > 0), jnp.zeros_like(low), high)

    def body(old: _Search) -> _Search:
        linear = jnp.where(unit.nonzero, cosines - old.level * slope, jnp.ones_like(cosines))
        face = jnp.where(old.count == 0, linear < 0, old.y > 0)
        solution = nonnegative_qp(unit.matrix, linear[None, :], face=face[None, :])
        y = jnp.where(unit.nonzero, solution.x[0], zero)
        regularization = solution.regularization[0]
        image = matvec(unit.matrix, y) + regularization * y
        distance = jnp.sqrt(jnp.maximum(dot(y, image), 0))
        inside = distance <= radius
        low = jnp.where(inside, old.level, old.low)
        high = jnp.where(inside, old.high, old.level)
        # d(distance)/dt = ⟨slope, y⟩/distance.
        rate = dot(slope, y)
        step = distance * (radius - distance) / jnp.where(rate > 0, rate, jnp.ones_like(rate))
        newton = jnp.where(rate > 0, old.level + step, high)
        between = (newton > low) & (newton <= high)
        level = jnp.where(between, newton, low + (high - low) / 2)
        scale = 1 + jnp.sqrt(dot(y, y))
        off = jnp.abs(distance - radius) / scale
        at_top = inside & (old.level == old.high)
        # Where λ makes up most of the distance no level above zero is attainable without it.
        weight = regularization * dot(y, y)
        unattainable = (old.level > 0) & (2 * weight > distance * distance)
        off = jnp.where(at_top | unattainable, jnp.zeros_like(off), off)
        y_zero = jnp.where(old.level == 0, y, old.y_zero)
        closed = high - low <= eps * jnp.maximum(jnp.abs(low), jnp.abs(high))
        return _Search(
            level=level,
            low=low,
            high=high,
            # On nearly singular rows the bracket may close on the far side of the ball.
            y=jnp.where(unattainable, y_zero, jnp.where(inside, y, y * (radius / distance))),
            y_zero=y_zero,
            residual=jnp.maximum(solution.residual[0], off),
            regularization=regularization,
            steps=old.steps + solution.steps[0],
            count=old.count + 1,
            # A NaN distance ends the search.
            done=~(off > tolerance) | closed,
        )

    def unfinished(search: _Search):
        return ~search.done & (search.count < _MAX_LEVELS)

    count = jnp.zeros((), jnp.int32)
    nothing = jnp.zeros_like(low)
    start = _Search(
        level, low, high, zero, zero, nothing, nothing, count, count, jnp.zeros((), jnp.bool_)
    )
    return lax.while_loop(unfinished, body, start)
