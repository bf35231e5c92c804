"""What Nash-MTL and FairGrad share: the bargain on unit rows, and the norm of its direction."""

import jax
import jax.numpy as jnp

from mgda_jax.solvers.bargaining import Bargain, bargaining_solution
from mgda_jax.solvers.linear_algebra import dot, matvec
from mgda_jax.tasks import check_hyperparameter
from mgda_jax.weighting.division import one_for_zero
from mgda_jax.weighting.unit_gramian import UnitGramian


def solve_bargain(unit: UnitGramian, share: jax.Array, power: float | jax.Array) -> Bargain:
    """a = ‖g‖∘w with w_tᵖ (Mw)_t = c_tᵖ; on unit rows aᵖ∘(Ca) = cᵖ ‖g‖^{p−1}."""
    target = jnp.power(share, power) * jnp.power(unit.norms, power - 1)
    return bargaining_solution(
        unit.matrix, jnp.where(unit.nonzero, target, jnp.ones_like(target)), power
    )


def row_weights(unit: UnitGramian, point: jax.Array) -> jax.Array:
    """Weights of the rows from weights of the unit rows; zero for the rows left out."""
    return jnp.where(unit.nonzero, point / unit.norms, jnp.zeros_like(point))


def clip_norm(weights, exponent, unit, max_norm):
    """weights · 2^exponent, shortened until ‖Σ w_t g_t‖ ≤ max_norm; see `representable`."""
    point = jnp.where(unit.nonzero, weights * unit.norms, jnp.zeros_like(weights))
    peak = jnp.max(jnp.abs(point))
    point = point / one_for_zero(peak)
    square = dot(point, matvec(unit.matrix, point))
    # The length is mantissa · 2^(shift + exponent), which need not be representable.
    mantissa, shift = jnp.frexp(peak * jnp.sqrt(jnp.maximum(square, 0)))
    shift = shift.astype(jnp.int32) + unit.exponent
    ratio = jnp.asarray(max_norm, weights.dtype) / one_for_zero(mantissa)
    too_long = jnp.ldexp(ratio, -shift - exponent) < 1
    factor = jnp.where(too_long, ratio, jnp.ones_like(ratio))
    return representable(weights * factor, jnp.where(too_long, -shift, exponent))


def representable(weights: jax.Array, exponent: jax.typing.ArrayLike) -> jax.Array:
    """weights ≥ 0 times 2^exponent, or times the nearest power of two that all of them bear.

    Held at the largest number or flushed to zero one by one they would be another direction.
    """
    info = jnp.finfo(weights.dtype)
    lowest, highest = _exponents(weights)
    # 2^(e−1) ≤ weight < 2^e. Where no power of two will do, the small ones are lost.
    exponent = jnp.maximum(exponent, info.minexp + 1 - lowest)
    return jnp.ldexp(weights, jnp.minimum(exponent, info.maxexp - highest))


def _exponents(weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Binary exponents of the least and the largest positive weight; 0 where there is none."""
    exponents = jnp.frexp(weights)[1].astype(jnp.int32)
    there, none = weights > 0, jnp.iinfo(jnp.int16)
    lowest = jnp.min(jnp.where(there, exponents, none.max))
    highest = jnp.max(jnp.where(there, exponents, none.min))
    any_there = jnp.any(there)
    return jnp.where(any_there, lowest, 0), jnp.where(any_there, highest, 0)


def cast(leaf, like):
    return leaf.astype(like.dtype)


def check_max_norm(max_norm, rule: str) -> None:
    if max_norm is not None:
        check_hyperparameter(max_norm, lambda x: x > 0, f"{rule}: max_norm must be > 0 or None")
