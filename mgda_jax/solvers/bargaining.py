"""The stationary point of an α-fair bargaining problem: aᵖ∘(Ca) = q, by damped Newton."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mgda_jax.solvers.linear_algebra import dot, factor, matvec

_MAX_STEPS = 48  # with λ = 0, and as many again with λ > 0


class Bargain(NamedTuple):
    """A solution and its certificate.

    Attributes:
      point: a, (T,) > 0.
      residual: () max_t |a_tᵖ (Ca + λa)_t / q_t − 1|.
      regularization: () λ: zero where the equation itself has a solution.
      steps: () int32 Newton steps.
    """

    point: jax.Array
    residual: jax.Array
    regularization: jax.Array
    steps: jax.Array


class _Iterate(NamedTuple):
    a: jax.Array
    z: jax.Array  # stands for Ca + λa, stays > 0
    best: jax.Array
    backward: jax.Array  # error of best over what rounding of C and a does to it
    regularization: jax.Array
    count: jax.Array  # Newton steps with this λ
    steps: jax.Array
    done: jax.Array


def bargaining_solution(matrix: jax.Array, target: jax.Array, power: float | jax.Array) -> Bargain:
    """The a > 0 with a_tᵖ (Ca + λa)_t = q_t for all t.

    It minimises the strictly convex ½ aᵀ(C + λI)a − Σ q_t φ(a_t), φ' = a^−p.
    Newton's method on the pair Ca + λa = z, z∘aᵖ = q, both factors kept positive
    by damping, from the best multiple of q^{1/(1+p)}.

    There is a solution with λ = 0 unless Cv = 0 for some v ≥ 0, v ≠ 0 (the
    origin lies in the convex hull of the rows). λ stays zero when one is found that
    rounding of C alone moves by less than eps^{1/3}: max_t a_tᵖ(|C|a)_t/q_t ≤
    eps^{−2/3}. Otherwise λ = √T·eps^{2/3}: as λ vanishes a grows as λ^{−1/(1+p)}
    on the rows that balance to zero, and the direction Σ a_t u_t of the unit rows
    tends to a limit.

    Args:
      matrix: C, (T, T) positive semidefinite up to rounding, unit diagonal.
      target: q, (T,) > 0.
      power: p > 0, may be traced.

    Returns:
      Bargain. NaN or Inf in, NaN out.
    """
    if isinstance(power, (int, float)):
        return _solve_static(matrix, target, power)
    return _solve_traced(matrix, target, power)


def _solve(matrix: jax.Array, target: jax.Array, power: float | jax.Array) -> Bargain:
    eps = jnp.finfo(matrix.dtype).eps
    fallback = len(target) ** 0.5 * eps ** (2 / 3)
    tolerance = 4 * eps
    peak = jnp.max(target)
    q = jnp.maximum(target / peak, jnp.finfo(matrix.dtype).tiny)
    absolute = jnp.abs(matrix)
    finite = jnp.all(jnp.isfinite(matrix)) & jnp.all(jnp.isfinite(target))

    def gradient(a, regularization):
        return matvec(matrix, a) + regularization * a

    def errors(a, regularization):
        """Residual, backward error and amplification of a."""
        scale = _power(a, power) / q
        residual = jnp.abs(gradient(a, regularization) * scale - 1)
        amplification = matvec(absolute, a) * scale
        # The maximum of many problems at once may drop a NaN, which must not pass for a solution.
        broken = ~jnp.all(jnp.isfinite(residual) & jnp.isfinite(amplification))
        worst = (jnp.max(residual), jnp.max(residual / (1 + amplification)), jnp.max(amplification))
        return tuple(jnp.where(broken, jnp.inf, x) for x in worst)

    def start(regularization):
        a = _power(q, 1 / (1 + power))
        curvature = jnp.maximum(dot(a, gradient(a, regularization)), eps * dot(a, a))
        a = a * _power(jnp.sum(q * a / _power(a, power)) / curvature, 1 / (1 + power))
        return a, jnp.maximum(gradient(a, regularization), 0.1 * q / _power(a, power))

    def body(old: _Iterate) -> _Iterate:
        a, z = _newton(
            matrix, gradient(old.a, old.regularization), q, power, old.a, old.z, old.regularization
        )
        _, backward, amplification = errors(a, old.regularization)
        better = backward < old.backward
        best = jnp.where(better, backward, old.backward)
        # One step more than it takes to get there: Newton's last step is the best one.
        solved = old.backward <= tolerance
        over = solved | (old.count + 1 == _MAX_STEPS) | ~jnp.isfinite(backward)
        accepted = (solved & (amplification <= eps ** (-2 / 3))) | (old.regularization > 0)
        again = over & ~accepted
        a_again, z_again = start(jnp.asarray(fallback, q.dtype))
        return _Iterate(
            a=jnp.where(again, a_again, a),
            z=jnp.where(again, z_again, z),
            best=jnp.where(again, a_again, jnp.where(better, a, old.best)),
            backward=jnp.where(again, jnp.inf, best),
            regularization=jnp.where(again, fallback, old.regularization),
            count=jnp.where(again, 0, old.count + 1),
            steps=old.steps + 1,
            done=over & accepted,
        )

    zero = jnp.zeros((), q.dtype)
    count = jnp.zeros((), jnp.int32)
    a, z = start(zero)
    first = _Iterate(a, z, a, jnp.full((), jnp.inf, q.dtype), zero, count, count, ~finite)
    end = lax.while_loop(lambda iterate: ~iterate.done, body, first)
    # Scaling q by s scales a by s^{1/(1+p)}.
    point = jnp.where(finite, end.best * _power(peak, 1 / (1 + power)), jnp.nan)
    residual, _, _ = errors(end.best, end.regularization)
    return Bargain(point, residual, end.regularization, end.steps)


# Compiled as functions of the module, so that a call outside any jit finds its program again.
_solve_static = jax.jit(_solve, static_argnums=2)
_solve_traced = jax.jit(_solve)


def _newton(matrix, gradient, q, power, a, z, regularization):
    """One damped step on Ca + λa = z, z∘aᵖ = q."""
    slope = power * z / a
    # Two eps damp the step where the factorisation would fail; the answer does not feel them.
    damping = slope + regularization + 2 * jnp.finfo(a.dtype).eps
    excess = q / _power(a, power) - z
    da = factor(matrix + jnp.diag(damping))(z - gradient + excess)
    dz = excess - slope * da
    ratio = jnp.maximum(jnp.max(-da / a), jnp.max(-dz / z))
    step = jnp.minimum(0.99 / jnp.maximum(ratio, jnp.finfo(a.dtype).tiny), 1)
    return a + step * da, z + step * dz


def _power(a, power):
    """a^power, exact for the power one of Nash's equation."""
    return a if isinstance(power, (int, float)) and power == 1 else jnp.power(a, power)
