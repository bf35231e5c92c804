"""The easy quadratic programs of a batch, by conjugate gradients on a face: nothing is factored."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

# Products with the matrix, all problems at once. Well-conditioned problems of a few hundred
# variables need about a hundred; ill-conditioned ones never finish and should end soon.
_MAX_STEPS = 256
# A face is given up when what is left of the slope on it is this share of what tells against it.
_INEXACT = 0.05


class _Iterate(NamedTuple):
    x: jax.Array  # zero off the face
    slope: jax.Array  # (C + λI)x + h
    direction: jax.Array
    square: jax.Array  # of the slope on the face
    face: jax.Array
    refresh: jax.Array  # the slope is to be computed anew from x
    done: jax.Array


def face_search(
    matrix: jax.Array,
    linear: jax.Array,
    face: jax.Array,
    todo: jax.Array,
    *,
    shift: jax.typing.ArrayLike,
    tolerance: jax.typing.ArrayLike,
) -> tuple[jax.Array, jax.Array]:
    """N problems argmin over x ≥ 0 of ½ xᵀ(C + λI)x + h_nᵀx, as far as they are easy.

    Semismooth Newton steps: on a face the minimiser is found by conjugate gradients
    from zero (so that it is the shortest, as λ asks, where C is singular), up to a fraction
    of the signs that tell against the face; then the face follows the signs. All problems
    advance by one product with C at a time, whatever each is at.

    Args:
      matrix: C, (T, T) as in `box_qp.nonnegative_qp`.
      linear: h, (N, T).
      face: (N, T) bool, a first guess where x > 0.
      todo: (N,) bool, the problems to look at.
      shift: λ.
      tolerance: of the natural residual without λ.

    Returns:
      x (N, T) ≥ 0, exactly zero off its face, and done (N,) bool: which of them meet
      the tolerance. The others are to be solved in another way.
    """
    eps, tiny = jnp.finfo(linear.dtype).eps, jnp.finfo(linear.dtype).tiny
    zero = jnp.zeros_like(linear)

    def begin(face, done):
        direction = jnp.where(face, -linear, zero)
        square = jnp.sum(direction * direction, axis=1)
        return _Iterate(zero, linear, direction, square, face, jnp.zeros_like(done), done)

    def body(carry):
        count, old = carry
        again = old.refresh[:, None]
        operand = jnp.where(again, old.x, old.direction)
        image = jnp.matmul(operand, matrix, precision=lax.Precision.HIGHEST) + shift * operand
        curvature = jnp.sum(old.direction * image, axis=1)
        length = jnp.where(old.refresh, 0, old.square / jnp.maximum(curvature, tiny))[:, None]
        x = old.x + length * old.direction
        slope = jnp.where(again, image + linear, old.slope + length * image)
        rest = jnp.where(old.face, -slope, zero)
        square = jnp.sum(rest * rest, axis=1)
        ratio = jnp.where(old.refresh, 0, square / jnp.maximum(old.square, tiny))
        direction = rest + ratio[:, None] * old.direction

        size = 1 + jnp.sqrt(jnp.sum(x * x, axis=1))
        against = jnp.max(jnp.maximum(jnp.where(old.face, -x, -slope), 0), axis=1)
        left = jnp.max(jnp.abs(rest), axis=1)
        settled = left <= jnp.maximum(_INEXACT * against, tolerance / 2 * size)
        wanted = jnp.where(old.face, x > 0, slope < 0)
        # Signs below eps are of C's own rounding: a face that followed them would never stay.
        right = against <= eps * size
        residual = jnp.max(jnp.abs(jnp.minimum(x, slope - shift * x)), axis=1)
        refresh = settled & right & ~old.refresh
        here = _Iterate(
            jnp.where(refresh[:, None], jnp.maximum(x, 0), x),
            slope,
            direction,
            square,
            old.face,
            refresh=refresh,
            done=old.refresh & right & (residual <= tolerance * size),
        )
        elsewhere = begin(wanted, here.done)
        new = _select(settled & ~right, elsewhere, here)
        return count + 1, _select(old.done, old, new)

    def unfinished(carry):
        count, iterate = carry
        return (count < _MAX_STEPS) & ~jnp.all(iterate.done)

    count = jnp.zeros((), jnp.int32)
    _, end = lax.while_loop(unfinished, body, (count, begin(face, ~todo)))
    return end.x, end.done & todo


def _select(problems: jax.Array, this: _Iterate, other: _Iterate) -> _Iterate:
    """this for the problems marked (N,), other for the rest."""

    def pick(a, b):
        return jnp.where(problems[:, None] if a.ndim == 2 else problems, a, b)

    return jax.tree.map(pick, this, other)
