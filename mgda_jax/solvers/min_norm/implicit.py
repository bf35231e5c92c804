"""Derivatives of the min-norm point by the implicit function theorem on its face."""

import jax
import jax.numpy as jnp

from mgda_jax.solvers.linear_algebra import dot, factor, matvec
from mgda_jax.solvers.min_norm.interior_point import scaled_problem

# Shift of the face's matrix in units of eps: derivatives on a singular face
# (duplicates) do not exist, and stay finite.
_SHIFT = 4


@jax.custom_jvp
def on_face(matrix: jax.Array, weights: jax.Array, face: jax.Array) -> jax.Array:
    """weights (T,), differentiable in matrix (T, T) as the min-norm weights on face (T,) bool.

    On the face M w = λ1 and 1ᵀw = 1, so dw = −P dM w with
    P = M⁻¹ − M⁻¹11ᵀM⁻¹ / 1ᵀM⁻¹1; off it dw = 0.
    """
    del matrix, face
    return weights


@on_face.defjvp
def _on_face_jvp(primals, tangents):
    matrix, weights, face = primals
    # Called again so that these weights, too, are differentiable: second derivatives.
    weights = on_face(matrix, weights, face)
    return weights, -_project(matrix, face, matvec(tangents[0], weights))


@jax.custom_jvp
def hull_norm(matrix: jax.Array, weights: jax.Array) -> jax.Array:
    """√(wᵀMw), whose derivative by the envelope theorem is wᵀ dM w / (2 ‖d‖).

    The weights' own change drops out at the minimum; leaving it out keeps its
    rounding out as well. At ‖d‖ = 0 the derivative is taken as zero.
    """
    return jnp.sqrt(jnp.maximum(dot(weights, matvec(matrix, weights)), 0))


@hull_norm.defjvp
def _hull_norm_jvp(primals, tangents):
    matrix, weights = primals
    norm = hull_norm(matrix, weights)
    change = dot(weights, matvec(tangents[0], weights))
    away = norm > 0
    slope = jnp.where(away, change / jnp.where(away, 2 * norm, jnp.ones_like(norm)), 0 * change)
    return norm, slope


def _project(matrix: jax.Array, face: jax.Array, vector: jax.Array) -> jax.Array:
    """P vector, computed without the tasks' scales.

    With unit rows P = R⁻¹(K⁻¹ − K⁻¹eeᵀK⁻¹ / eᵀK⁻¹e)R⁻¹, e = u: adding uuᵀ to C
    changes nothing across u.
    """
    problem = scaled_problem(matrix, face)
    size, dtype = vector.size, vector.dtype
    eps = jnp.finfo(dtype).eps
    solve = factor(problem.matrix + _SHIFT * eps * jnp.eye(size, dtype=dtype))
    diagonal = jnp.where(face, jnp.diagonal(matrix), jnp.ones_like(vector))
    inverse_norms = jnp.where(face, 1 / jnp.sqrt(diagonal), jnp.zeros_like(vector))
    across = solve(problem.scale)
    curvature = dot(problem.scale, across)
    x = solve(inverse_norms * vector)
    share = dot(problem.scale, x) / jnp.where(curvature > 0, curvature, 1)
    return inverse_norms * (x - share * across)
