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
    """weights · 2^exponent, shortened until ‖Σ w_t g_t‖ ≤ max_norm."""
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
    return finite(jnp.ldexp(weights * factor, jnp.where(too_long, -shift, exponent)))


def finite(weights: jax.Array) -> jax.Array:
    largest = jnp.finfo(weights.dtype).max
    return jnp.clip(weights, -largest, largest)


def cast(leaf, like):
    return leaf.astype(like.dtype)


def check_max_norm(max_norm, rule: str) -> None:
    if max_norm is not None:
        check_hyperparameter(max_norm, lambda x: x > 0, f"{rule}: max_norm must be > 0 or None")
