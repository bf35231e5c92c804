"""The exact method: a primal–dual interior point, then one exact solve on the face.

With r_t = ‖g_t‖, C = M / (r rᵀ) and u = min(r) / r the min-norm weights are
α = u∘b / uᵀb for the solution b of

    min over b ≥ 0 of ½ bᵀKb − uᵀb,   K = C + u uᵀ:

no equality constraint, a diagonal of order one, and no trace of the tasks' scales.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mgda_jax.solvers.linear_algebra import dot, factor, matvec
from mgda_jax.solvers.predictor_corrector import advance, correction

# The residual to stop at, and the shift of the Newton matrix, in units of eps. The
# shift damps the step only; the optimality conditions do not contain it.
_TOLERANCE = 4
_SHIFT = 4
# The final exact solve: the faces it may try, and its shift in units of eps, large
# enough that on a singular face rounding does not carry b away along the null space.
_FACES = 2
_FACE_SHIFT = 16


class ScaledProblem(NamedTuple):
    """The problem without its scales.

    Attributes:
      cosines: (T, T) C, the identity in rows that do not take part.
      scale: (T,) u in (0, 1], zero in rows that do not take part.
      target: (T,) the linear term: u, and −1 in rows that do not take part, which
        holds their b at zero with a dual of one.
      matrix: (T, T) K.
    """

    cosines: jax.Array
    scale: jax.Array
    target: jax.Array
    matrix: jax.Array


class _Iterate(NamedTuple):
    b: jax.Array
    z: jax.Array
    image: jax.Array  # Kb


class _Best(NamedTuple):
    b: jax.Array
    z: jax.Array
    score: jax.Array


def default_max_steps(dtype: jax.typing.DTypeLike) -> int:
    """A bound above what any of the problem families of the tests needs."""
    return 16 if jnp.finfo(dtype).bits <= 32 else 32


@functools.partial(jax.jit, static_argnames="max_steps")
def interior_point(
    matrix: jax.Array, active: jax.Array | None, max_steps: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Weights of the min-norm point by Mehrotra's predictor–corrector method.

    Args:
      matrix: (T, T) Gramian, finite, with a positive diagonal where active.
      active: (T,) bool with at least one True, or None.
      max_steps: bound on the Newton steps.

    Returns:
      weights (T,), face (T,) bool, the tasks that the solution rests on, and the
      number of Newton steps, () int32.

    References:
      Mehrotra, "On the implementation of a primal-dual interior point method",
      SIAM Journal on Optimization 2(4), 1992.
    """
    problem = scaled_problem(matrix, active)
    tolerance = _TOLERANCE * jnp.finfo(matrix.dtype).eps
    start = _start(problem)

    def unfinished(carry):
        _, best, step = carry
        return (best.score > tolerance) & (step < max_steps)

    def body(carry):
        current, best, step = carry
        current = _newton_step(problem, current)
        found = _Best(current.b, current.z, _score(problem, *current))
        # Rounding can spoil late iterates; a NaN score never wins.
        better = found.score < best.score
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), found, best)
        return current, best, step + 1

    worst = _Best(start.b, start.z, jnp.full((), jnp.inf, matrix.dtype))
    init = (start, worst, jnp.zeros((), jnp.int32))
    _, best, steps = lax.while_loop(unfinished, body, init)
    face = (best.b > best.z) & (problem.scale > 0)
    b, face = crossover(problem, best.b, face, tolerance)
    share = problem.scale * b
    return share / jnp.sum(share), face, steps


def scaled_problem(matrix: jax.Array, active: jax.Array | None) -> ScaledProblem:
    """The problem in b; arguments as in `interior_point`."""
    diagonal = jnp.diagonal(matrix)
    if active is not None:
        diagonal = jnp.where(active, diagonal, jnp.ones_like(diagonal))
    norms = jnp.sqrt(diagonal)
    # Row by row, then column by column: the product of two small norms underflows.
    cosines = matrix / norms[:, None] / norms[None, :]
    # Entries rounded apart from their diagonal can claim more than a Gramian has. Not
    # clip, whose derivative is halved at one.
    cosines = jnp.where(jnp.abs(cosines) > 1, jnp.sign(cosines), cosines)
    if active is None:
        scale = target = jnp.min(norms) / norms
    else:
        both = active[:, None] & active[None, :]
        cosines = jnp.where(both, cosines, jnp.eye(norms.size, dtype=norms.dtype))
        least = jnp.min(jnp.where(active, norms, jnp.full_like(norms, jnp.inf)))
        scale = jnp.where(active, least / norms, jnp.zeros_like(norms))
        target = jnp.where(active, scale, -jnp.ones_like(norms))
    return ScaledProblem(cosines, scale, target, cosines + scale[:, None] * scale[None, :])


def _start(problem: ScaledProblem) -> _Iterate:
    """b = s·1 with the best s, and duals that keep clear of the boundary."""
    rows = jnp.sum(problem.matrix, axis=1)
    total = jnp.sum(jnp.where(problem.scale > 0, rows, jnp.zeros_like(rows)))
    b = jnp.full_like(rows, jnp.sum(problem.scale) / total)
    image = matvec(problem.matrix, b)
    z = jnp.maximum(image - problem.target, 0.1 * jnp.maximum(problem.scale, 0.01))
    return _Iterate(b, z, image)


def _newton_step(problem: ScaledProblem, iterate: _Iterate) -> _Iterate:
    """One predictor–corrector step towards Kb − u = z, b∘z = 0, b ≥ 0, z ≥ 0."""
    b, z, image = iterate
    shift = _SHIFT * jnp.finfo(b.dtype).eps
    solve = factor(problem.matrix + jnp.diag(z / b + shift))
    slope = image - problem.target
    corrector = correction(b, z, solve(-slope))
    b, z = advance(b, z, solve(corrector - slope), corrector)
    return _Iterate(b, z, matvec(problem.matrix, b))


def _kkt(problem: ScaledProblem, b: jax.Array, inner: jax.Array) -> jax.Array:
    """`solution.kkt` in the scaled problem, inner = Cb, before it is cut off at zero."""
    return jnp.max(_level(problem, b, inner) * problem.scale - inner) / jnp.sum(b)


def _level(problem: ScaledProblem, b: jax.Array, inner: jax.Array) -> jax.Array:
    """λ with Cb ≥ λu at the optimum, where b is positive with equality."""
    return dot(b, inner) / dot(problem.scale, b)


def _score(problem: ScaledProblem, b, z, image) -> jax.Array:
    """The largest of the residuals; kkt alone is optimistic where ‖d‖² is below eps."""
    total, size = dot(problem.scale, b), jnp.sum(b)
    optimality = _kkt(problem, b, image - problem.scale * total)
    complementarity = dot(b, z) / (total * size)
    infeasibility = jnp.max(jnp.abs(image - problem.target - z)) / size
    return jnp.maximum(jnp.maximum(optimality, complementarity), infeasibility)


def crossover(
    problem: ScaledProblem, b: jax.Array, face: jax.Array, tolerance: jax.typing.ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """b with exact zeros off its face and the exact solution on it, if that certifies no worse.

    A face that the interior point could not tell apart at its tolerance is
    corrected by its signs, as an active-set method does, a bounded number of times.

    Returns:
      b (T,) and its face (T,) bool.
    """

    def unfinished(carry):
        _, _, _, _, settled, rounds = carry
        return ~settled & (rounds < _FACES)

    def body(carry):
        best, best_face, bound, face, _, rounds = carry
        exact = _solve_on_face(problem, jnp.where(face, b, jnp.zeros_like(b)), face)
        inner = matvec(problem.cosines, exact)
        level = _level(problem, exact, inner)
        violated = inner < level * problem.scale
        next_face = jnp.where(face, exact > 0, violated)
        exact = jnp.maximum(exact, 0)
        error = _kkt(problem, exact, matvec(problem.cosines, exact))
        # Never negative but for rounding: a large negative value is an overflow.
        better = jnp.abs(error) <= bound
        best = jnp.where(better, exact, best)
        best_face = jnp.where(better, face, best_face)
        bound = jnp.where(better, error, bound)
        return best, best_face, bound, next_face, jnp.all(next_face == face), rounds + 1

    bound = jnp.maximum(_kkt(problem, b, matvec(problem.cosines, b)), tolerance)
    init = (b, face, bound, face, jnp.zeros((), bool), jnp.zeros((), jnp.int32))
    best, best_face, *_ = lax.while_loop(unfinished, body, init)
    return best, best_face


def _solve_on_face(problem: ScaledProblem, b: jax.Array, face: jax.Array) -> jax.Array:
    """C_SS b_S = λu_S by two corrections from b, so that a singular face keeps what b had.

    λ = bᵀCb / uᵀb. Unlike in Kb = u no term of order one stands next to λu, so a
    short d keeps its relative accuracy.
    """
    eps = jnp.finfo(b.dtype).eps
    zeros, both = jnp.zeros_like(b), face[:, None] & face[None, :]
    shift = jnp.diag(jnp.where(face, _FACE_SHIFT * eps, jnp.ones_like(b)))
    solve = factor(jnp.where(both, problem.matrix, jnp.zeros_like(problem.matrix)) + shift)
    for _ in range(2):
        inner = matvec(problem.cosines, b)
        residual = _level(problem, b, inner) * problem.scale - inner
        b = b + solve(jnp.where(face, residual, zeros))
    return b
