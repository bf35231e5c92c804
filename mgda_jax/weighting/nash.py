"""Nash-MTL and FairGrad: the directions of fair bargaining between the tasks."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mgda_jax.min_norm.solution import dot, matvec
from mgda_jax.tasks import check_hyperparameter
from mgda_jax.weighting.bargaining import Bargain, bargaining_solution
from mgda_jax.weighting.base import Weighting
from mgda_jax.weighting.unit_gramian import (
    UnitGramian,
    check_preference,
    preference_vector,
    unit_gramian,
)

PyTree = Any


class NashState(NamedTuple):
    """State of `nash_mtl`.

    Attributes:
      weights: (T,) the last solution, before the norm is clipped.
      count: () int32, updates so far.
      residual: () max_t |w_t (Mw + λ·diag(M)w)_t / c_t − 1| at the last solve.
      regularization: () λ of the last solve, zero where the equation has a solution.
      steps: () int32 Newton steps of the last solve.
    """

    weights: jax.Array
    count: jax.Array
    residual: jax.Array
    regularization: jax.Array
    steps: jax.Array


class FairState(NamedTuple):
    """What the last solve of `fair_grad` reported.

    Attributes:
      residual: () max_t |(Mw + λ·diag(M)w)_t (w_t / c_t)^{1/α} − 1|.
      regularization: () λ, zero where the equation has a solution.
      steps: () int32 Newton steps.
    """

    residual: jax.Array
    regularization: jax.Array
    steps: jax.Array


def nash_mtl(
    *,
    preference: PyTree = None,
    max_norm: float | jax.Array | None = None,
    normalize: bool = False,
    every: int | jax.Array = 1,
) -> Weighting:
    """Nash-MTL: the Nash bargaining solution, to which every task gains the same share.

    w_t (Mw)_t = c_t for every t, with c = 1. So ⟨g_t, d⟩ w_t = 1, ‖d‖² = T, and
    rescaling one task's loss changes nothing. With other c it is the asymmetric
    bargaining solution, the maximum of Π ⟨g_t, d⟩^{c_t}, ‖d‖² = Σ c_t.

    Where the origin is in the convex hull of the rows (an opposed pair, a
    stationary point) no w solves this: then M + λ·diag(M) takes the place of M,
    see `mgda_jax.weighting.bargaining`, and λ is in the state. A task whose
    gradient is zero has nothing to bargain for: it gets the weight zero and
    the others bargain among themselves. Weights that overflow (gradients below
    1e-38) are held at the largest finite number.

    Args:
      preference: c, (T,) array, sequence or dict of named scalars > 0; ones by
        default. Not normalised.
      max_norm: longest ‖d‖ allowed, longer ones are shortened to it; None for
        the equation as it is. The public code uses 1.
      normalize: solve with M/‖M‖_F as the public code does: d is longer by
        √‖M‖_F, so that it has the gradients' scale instead of the fixed √T.
      every: solve at every so many updates and keep the weights in between (of
        all tasks active at the solve). max_norm applies at every update.

    Returns:
      Weighting of scope "shared" that reads "gramian".

    Raises:
      ValueError: a concrete preference or max_norm that is not positive, every
        below 1; at update, a preference of another length.

    Examples:
      >>> import jax.numpy as jnp
      >>> rows = jnp.array([[2.0, 0.0], [0.0, 0.5]])
      >>> rule = nash_mtl()
      >>> rule.update(rule.init(2), gramian=rows @ rows.T)[0]
      Array([0.5, 2. ], dtype=float32)

    References:
      Navon et al., "Multi-Task Learning as a Bargaining Game", ICML 2022,
      equation (3). Kalai, "Nonsymmetric Nash solutions", 1977, for c.
    """
    check_preference(preference, "nash_mtl", positive=True)
    _check_max_norm(max_norm, "nash_mtl")
    check_hyperparameter(every, lambda x: x >= 1, "nash_mtl: every must be at least 1")

    def init(num_tasks: int) -> NashState:
        # One array each: leaves that share a buffer cannot be donated.
        count, steps = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)
        return NashState(jnp.zeros(num_tasks), count, jnp.zeros(()), jnp.zeros(()), steps)

    def solve(unit: UnitGramian, active: jax.Array | None) -> NashState:
        share = preference_vector(preference, unit, active, "nash_mtl")
        bargain = _solve(unit, share, 1.0)
        scaled = _row_weights(unit, bargain.point)
        if normalize:
            gramian = unit.matrix * unit.norms[:, None] * unit.norms[None, :]
            rows = unit.nonzero[:, None] & unit.nonzero[None, :]
            size = jnp.sqrt(jnp.sum(jnp.where(rows, gramian, jnp.zeros_like(gramian)) ** 2))
            weights = scaled * jnp.sqrt(size)
        else:
            weights = _finite(jnp.ldexp(scaled, -unit.exponent))
        return NashState(
            weights,
            jnp.zeros((), jnp.int32),
            bargain.residual,
            bargain.regularization,
            bargain.steps,
        )

    def update(state, *, gramian, active=None, **_):
        unit = unit_gramian(gramian, active)
        if isinstance(every, int) and every == 1:
            new = solve(unit, active)
        else:
            fresh = state.count % every == 0
            kept = jax.tree.map(_cast, state, jax.eval_shape(lambda: solve(unit, active)))
            new = lax.cond(fresh, lambda: solve(unit, active), lambda: kept)
        weights = new.weights
        if max_norm is not None:
            exponent = jnp.zeros((), jnp.int32)
            weights = _clip_norm(weights, exponent, unit, max_norm)
        return weights, new._replace(count=state.count + 1)

    return Weighting(init, update)


def fair_grad(
    *,
    alpha: float | jax.Array = 2.0,
    preference: PyTree = None,
    max_norm: float | jax.Array | None = None,
) -> Weighting:
    """FairGrad: the α-fair direction, from the sum of the gains to the largest least gain.

    (Mw)_t = (c_t / w_t)^{1/α} for every t, with c = 1: the stationary point of the
    α-fair utility Σ c_t ⟨g_t, d⟩^{1−α}/(1 − α). α = 1 is Nash-MTL; as α grows it
    favours the task that gains least. Singular M, zero rows and overflow are
    handled as in `nash_mtl`.

    Args:
      alpha: α > 0; 2 in the published runs.
      preference: c, (T,) array, sequence or dict of named scalars > 0; ones by
        default. Not normalised.
      max_norm: longest ‖d‖ allowed, longer ones are shortened to it; None for
        the equation as it is. The public code uses 1.

    Returns:
      Weighting of scope "shared" that reads "gramian".

    Raises:
      ValueError: a concrete alpha, preference or max_norm that is not positive;
        at update, a preference of another length.

    Examples:
      >>> import jax.numpy as jnp
      >>> rows = jnp.array([[1.0, 0.0], [0.0, 8.0]])
      >>> rule = fair_grad(alpha=2.0)
      >>> weights, _ = rule.update(rule.init(2), gramian=rows @ rows.T)
      >>> jnp.round(weights, 4)
      Array([1.    , 0.0625], dtype=float32)

    References:
      Ban and Ji, "Fair Resource Allocation in Multi-Task Learning", ICML 2024,
      equation (4). Mo and Walrand, "Fair end-to-end window-based congestion
      control", 2000, for c.
    """
    check_hyperparameter(
        alpha, lambda x: x > 0 and x < float("inf"), "fair_grad: alpha must be > 0"
    )
    check_preference(preference, "fair_grad", positive=True)
    _check_max_norm(max_norm, "fair_grad")

    def init(num_tasks: int) -> FairState:
        del num_tasks
        return FairState(jnp.zeros(()), jnp.zeros(()), jnp.zeros((), jnp.int32))

    def update(state, *, gramian, active=None, **_):
        del state
        unit = unit_gramian(gramian, active)
        power = 1 / (
            alpha if isinstance(alpha, (int, float)) else _cast(jnp.asarray(alpha), unit.norms)
        )
        share = preference_vector(preference, unit, active, "fair_grad")
        bargain = _solve(unit, share, power)
        # M·4^e w = w^−p is solved by 2^{−2e/(1+p)} times the solution for M. The
        # remainder is formed from exact products, so that no digits are lost to a large e.
        twice = -2 * unit.exponent.astype(unit.norms.dtype)
        whole = jnp.round(twice / (1 + power))
        fraction = (twice - whole * (1 + power)) / (1 + power)
        scaled = _row_weights(unit, bargain.point) * jnp.exp2(fraction)
        whole = whole.astype(jnp.int32)
        if max_norm is None:
            weights = _finite(jnp.ldexp(scaled, whole))
        else:
            weights = _clip_norm(scaled, whole, unit, max_norm)
        return weights, FairState(bargain.residual, bargain.regularization, bargain.steps)

    return Weighting(init, update)


def _solve(unit: UnitGramian, share: jax.Array, power: float | jax.Array) -> Bargain:
    """a = ‖g‖∘w with w_tᵖ (Mw)_t = c_tᵖ; on unit rows aᵖ∘(Ca) = cᵖ ‖g‖^{p−1}."""
    target = jnp.power(share, power) * jnp.power(unit.norms, power - 1)
    return bargaining_solution(
        unit.matrix, jnp.where(unit.nonzero, target, jnp.ones_like(target)), power
    )


def _row_weights(unit: UnitGramian, point: jax.Array) -> jax.Array:
    """Weights of the rows from weights of the unit rows; zero for the rows left out."""
    return jnp.where(unit.nonzero, point / unit.norms, jnp.zeros_like(point))


def _clip_norm(weights, exponent, unit, max_norm):
    """weights · 2^exponent, shortened until ‖Σ w_t g_t‖ ≤ max_norm."""
    point = jnp.where(unit.nonzero, weights * unit.norms, jnp.zeros_like(weights))
    peak = jnp.max(jnp.abs(point))
    point = point / jnp.where(peak == 0, jnp.ones_like(peak), peak)
    square = dot(point, matvec(unit.matrix, point))
    # The length is mantissa · 2^(shift + exponent), which need not be representable.
    mantissa, shift = jnp.frexp(peak * jnp.sqrt(jnp.maximum(square, 0)))
    shift = shift.astype(jnp.int32) + unit.exponent
    mantissa = jnp.where(mantissa == 0, jnp.ones_like(mantissa), mantissa)
    ratio = jnp.asarray(max_norm, weights.dtype) / mantissa
    too_long = jnp.ldexp(ratio, -shift - exponent) < 1
    factor = jnp.where(too_long, ratio, jnp.ones_like(ratio))
    return _finite(jnp.ldexp(weights * factor, jnp.where(too_long, -shift, exponent)))


def _finite(weights: jax.Array) -> jax.Array:
    largest = jnp.finfo(weights.dtype).max
    return jnp.clip(weights, -largest, largest)


def _cast(leaf, like):
    return leaf.astype(like.dtype)


def _check_max_norm(max_norm, rule: str) -> None:
    if max_norm is not None:
        check_hyperparameter(max_norm, lambda x: x > 0, f"{rule}: max_norm must be > 0 or None")
