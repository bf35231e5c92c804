"""The answer and its certificates: how far weights are from the min-norm point."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mgda_jax.solvers.linear_algebra import dot, matvec


class MinNormSolution(NamedTuple):
    """The min-norm point d = Σ_t w_t g_t with its certificate.

    Attributes:
      weights: (T,) on the simplex, in the Gramian's dtype; NaN where the Gramian
        is no Gramian (NaN, Inf, negative diagonal), zero where no task is active.
      norm: () ‖d‖ = √(wᵀMw) · 2^exponent. Near a stationary point M itself is
        rounded, so below √eps · Σ w_t ‖g_t‖ the value is noise.
      kkt: () max_t (‖d‖² − ⟨g_t, d⟩) / (‖g_t‖ · Σ_s w_s ‖g_s‖), never negative: zero
        at the optimum, a few eps at a solution, whatever the scale of M. It is
        itself rounded, to a few eps · Σ_s w_s ‖g_s‖ / min_t ‖g_t‖.
      steps: () int32, steps taken; zero for a closed form.
    """

    weights: jax.Array
    norm: jax.Array
    kkt: jax.Array
    steps: jax.Array


def kkt(matrix: jax.Array, weights: jax.Array, active: jax.Array | None = None) -> jax.Array:
    """max_t (‖d‖² − ⟨g_t, d⟩) / (‖g_t‖ S₁), S₁ = Σ_s w_s ‖g_s‖: the scale-free residual.

    Args:
      matrix: (T, T) Gramian; inactive rows finite.
      weights: (T,) on the simplex, zero where inactive.
      active: (T,) bool or None.

    Returns:
      () at least zero; Inf when a zero row is passed over.
    """
    # In units of 2^e_t ≈ ‖g_t‖ a row, and of the largest w_t ‖g_t‖: exact, and nothing
    # that counts underflows where short rows lie near the smallest normal number.
    norms = row_norms(matrix)
    exponents = jnp.frexp(norms)[1]
    down = jnp.ldexp(jnp.ones_like(norms), -exponents)
    parts = jnp.ldexp(weights, exponents)
    common = jnp.frexp(jnp.max(parts))[1]
    parts = jnp.ldexp(parts, -common)
    along = matvec(matrix * down[:, None] * down[None, :], parts)
    norms = norms * down
    level = jnp.ldexp(dot(parts, along), common - exponents)
    return _largest_ratio(level - along, norms * dot(parts, norms), active)


def kkt_backward(
    matrix: jax.Array, weights: jax.Array, active: jax.Array | None = None
) -> jax.Array:
    """max_t (‖d‖² − ⟨g_t, d⟩) / ((‖g_t‖ + S₁) S₁): the backward error of the weights.

    Arguments as in `kkt`; finite.
    """
    norms, along = row_norms(matrix), matvec(matrix, weights)
    s1 = dot(weights, norms)
    return _largest_ratio(dot(weights, along) - along, (norms + s1) * s1, active)


def gap(matrix: jax.Array, weights: jax.Array, active: jax.Array | None = None) -> jax.Array:
    """‖d‖² − min_t ⟨g_t, d⟩, the duality gap, in the unit of the Gramian.

    It bounds the direction: ‖d − d*‖ ≤ √gap. Arguments as in `kkt`.
    """
    along = matvec(matrix, weights)
    return _largest_ratio(dot(weights, along) - along, jnp.ones_like(along), active)


def residual(
    norms: jax.Array, weights: jax.Array, along: jax.Array, active: jax.Array | None
) -> jax.Array:
    """`kkt` from ‖g_t‖, w_t and ⟨g_t, d⟩, each (T,)."""
    scale = norms * dot(weights, norms)
    return _largest_ratio(dot(weights, along) - along, scale, active)


def row_norms(matrix: jax.Array) -> jax.Array:
    """‖g_t‖ (T,) from a Gramian (T, T)."""
    return jnp.sqrt(jnp.maximum(jnp.diagonal(matrix), 0))


def _largest_ratio(excess: jax.Array, scale: jax.Array, active: jax.Array | None) -> jax.Array:
    """max(0, max_t excess_t / scale_t), with 0/0 = 0; NaN where excess is."""
    zeros = jnp.zeros_like(excess)
    ratio = jnp.where(excess <= 0, zeros, excess / scale)
    if active is not None:
        ratio = jnp.where(active, ratio, zeros)
    return jnp.max(ratio)
