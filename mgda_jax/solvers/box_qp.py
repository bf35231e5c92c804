"""Convex quadratic programs over the non-negative orthant, many with one matrix.

The projections of UPGrad and DualProj (v ≥ l is x ≥ 0 with v = l + x) and the
one-dimensional dual of CAGrad are problems of this form on the Gramian of unit rows.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mgda_jax.solvers.face_search import face_search
from mgda_jax.solvers.linear_algebra import factor, matvec
from mgda_jax.solvers.predictor_corrector import advance, correction

# Face steps from the first guess, which most problems need no more of; then this many
# interior-point steps and a few face steps from where those got to, in turn.
_FIRST = 8
_INTERIOR = 6
_FACE = 2
# A certified interior point may be far longer than the shortest minimiser before this turn.
_LATE = 2
# λ in units of eps, and what is factorised instead of C + λI: C + max(32, T) eps I. On a
# nearly singular face the rounding of the factorisation would outweigh λ.
_REGULARIZATION = 8
_SHIFT = 32
# Up to so many variables a factorisation a problem and step costs less than what it saves.
_FACTORED = 64


class QPSolution(NamedTuple):
    """Minimisers of N problems and their certificate.

    Attributes:
      x: (N, T) ≥ 0.
      residual: (N,) max_i |min(x_i, (Cx + h)_i)| / (1 + ‖x‖): zero exactly at the
        minimisers of the problem without regularisation.
      regularization: (N,) λ, see `nonnegative_qp`.
      steps: (N,) int32 factorisations until the problem was certified; zero where
        `face_search` has done it.
    """

    x: jax.Array
    residual: jax.Array
    regularization: jax.Array
    steps: jax.Array


class _Iterate(NamedTuple):
    y: jax.Array  # primal, > 0
    z: jax.Array  # dual, > 0
    face: jax.Array  # bool: where the minimiser is thought to be positive
    x: jax.Array  # the best answer so far
    residual: jax.Array  # of x, without the regularisation
    regularization: jax.Array
    steps: jax.Array
    done: jax.Array


@jax.jit
def nonnegative_qp(
    matrix: jax.Array, linear: jax.Array, *, face: jax.Array | None = None
) -> QPSolution:
    """N problems x_n = argmin over x ≥ 0 of ½ xᵀ(C + λI)x + h_nᵀx with λ = 8 eps.

    Beyond 64 variables `face_search` takes the easy problems first, without a factorisation.
    Semismooth Newton steps on the face where x_i is thought to be positive (one
    masked Cholesky solve each) are exact once the face is right. Where they go
    astray Mehrotra's predictor–corrector interior point finds a better face, and
    the two take turns until the residual is of rounding size. Factorised is
    C + max(32, T) eps I, whose rounding does not stall them: as proximal steps towards the
    minimiser at λ they carry none of its bias. λ, relative to the unit diagonal, is what
    rounding does to C anyway; both grow whenever the matrix turns out indefinite.
    It makes the minimiser unique and finite when C is singular: up to O(λ) the
    shortest minimiser of the problem itself, whose Cx is unique in any case.

    Args:
      matrix: C, (T, T) positive semidefinite up to rounding, unit diagonal.
      linear: h, (N, T) of order one (larger positive entries do no harm) and
        bounded below on x ≥ 0, Cx = 0, as h = Ub is when C = UUᵀ.
      face: (N, T) bool, a first guess where x > 0; by default where h < 0.

    Returns:
      QPSolution. NaN or Inf in, NaN out.
    """
    tolerance = _REGULARIZATION * jnp.finfo(linear.dtype).eps
    images = jax.vmap(matvec, in_axes=(None, 0))
    primal = jnp.ones_like(linear)
    slack = jnp.maximum(images(matrix, primal) + linear, 0.1)
    problems = linear.shape[:1]
    finite = jnp.all(jnp.isfinite(matrix)) & jnp.all(jnp.isfinite(linear), axis=1)
    start = _Iterate(
        y=primal,
        z=slack,
        face=linear < 0 if face is None else face,
        x=jnp.where(finite[:, None], jnp.zeros_like(linear), jnp.nan),
        residual=jnp.full(problems, jnp.inf, linear.dtype),
        regularization=jnp.full(problems, tolerance, linear.dtype),
        steps=jnp.zeros(problems, jnp.int32),
        done=~finite,
    )
    if matrix.shape[0] > _FACTORED:
        x, settled = face_search(
            matrix, linear, start.face, finite, shift=tolerance, tolerance=tolerance
        )
        x = jnp.where(settled[:, None], x, start.x)
        start = start._replace(x=x, done=start.done | settled)
    step = jax.vmap(_step, in_axes=(None, 0, 0, None, None, None))

    # Above what the problem families of the tests need in float64; in float32 the worst
    # conditioned of them gain nothing after it.
    max_steps = 48 if jnp.finfo(linear.dtype).bits <= 32 else 96

    def body(carry):
        count, iterate = carry
        turn, place = jnp.divmod(count - _FIRST, _INTERIOR + _FACE)
        on_face = (turn < 0) | (place >= _INTERIOR)
        return count + 1, step(matrix, linear, iterate, on_face, turn >= _LATE, tolerance)

    def unfinished(carry):
        count, iterate = carry
        return (count < max_steps) & ~jnp.all(iterate.done)

    _, end = lax.while_loop(unfinished, body, (jnp.zeros((), jnp.int32), start))
    residual = jax.vmap(_natural_residual)(end.x, images(matrix, end.x) + linear)
    return QPSolution(end.x, residual, end.regularization, end.steps)


def _step(matrix, linear, old, on_face, late, tolerance):
    """One step of one problem; a finished problem keeps its answer.

    Face and interior steps share their two solves. As two branches they would both
    run under vmap, and at once: on two cores, with a thousand problems, the CPU
    runtime of jaxlib 0.10.2 then waits for ever.
    """
    zero = jnp.zeros_like(linear)
    proximal = max(_SHIFT, len(linear)) / _REGULARIZATION - 1
    shift = old.regularization + proximal * tolerance

    def gradient(x):
        return matvec(matrix, x) + old.regularization * x + linear

    def natural_residual(x):
        return _natural_residual(x, matvec(matrix, x) + linear)

    # In an interior step every coordinate is free and z/y is the barrier's diagonal.
    free = old.face | ~on_face
    diagonal = jnp.where(on_face, (~old.face).astype(linear.dtype), old.z / old.y)
    masked = jnp.where(free[:, None] & free[None, :], matrix, jnp.zeros_like(matrix))
    solve = factor(masked + jnp.diag(diagonal + shift))
    slope = gradient(old.y)

    first = solve(jnp.where(on_face, jnp.where(old.face, -linear, zero), -slope))
    x = jnp.where(old.face, first, zero)
    refinement = jnp.where(old.face, -gradient(x), zero)
    corrector = correction(old.y, old.z, first)
    second = solve(jnp.where(on_face, refinement, corrector - slope))
    x = x + jnp.where(old.face, second, zero)
    y, z = advance(old.y, old.z, second, corrector)

    face = jnp.where(on_face, x > jnp.where(old.face, zero, gradient(x)), y > z)
    x = jnp.where(on_face, jnp.maximum(x, 0), y)
    residual = natural_residual(x)
    # A proximal step whose fixed points on the face are free of λ too.
    bias = jnp.where(old.face, -(matvec(matrix, x) + linear), zero)
    closer = jnp.maximum(x + jnp.where(old.face, solve(bias), zero), 0)
    error = natural_residual(closer)
    nearer = on_face & (error < residual)
    x, residual = jnp.where(nearer, closer, x), jnp.where(nearer, error, residual)
    # The factorisation of a matrix that is indefinite by rounding is NaN.
    failed = ~jnp.isfinite(residual)
    moved = ~failed & ~on_face
    # A certified face point is exactly zero off its face and beats any interior iterate. Of
    # those the later is the shorter where the problem leaves the length open.
    better = (residual < old.residual) | (residual <= tolerance)
    best = jnp.where(better, residual, old.residual)
    new = _Iterate(
        y=jnp.where(moved, y, old.y),
        z=jnp.where(moved, z, old.z),
        face=jnp.where(failed, old.face, face),
        x=jnp.where(better, x, old.x),
        residual=best,
        regularization=jnp.where(failed, 2 * old.regularization, old.regularization),
        steps=old.steps + 1,
        done=on_face & ((residual <= tolerance) | (late & (best <= tolerance))),
    )
    return jax.tree.map(lambda a, b: jnp.where(old.done, a, b), old, new)


def _natural_residual(x, gradient):
    return jnp.max(jnp.abs(jnp.minimum(x, gradient))) / (1 + jnp.sqrt(jnp.sum(x * x)))
