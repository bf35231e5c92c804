"""What IMTL and ConFIG share: weights whose projections on the unit gradients are prescribed."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mgda_jax.solvers.spectrum import Spectrum, spectrum
from mgda_jax.weighting.unit_gramian import UnitGramian


class EqualReport(NamedTuple):
    """What the last solve reported.

    Attributes:
      residual: () max_t |⟨d, u_t⟩ − p c_t| / (p max_t c_t), u_t the unit gradients, p the
        common projection: zero where the equation has a solution, up to rounding.
    """

    residual: jax.Array


def init_equal(num_tasks: int) -> EqualReport:
    del num_tasks
    return EqualReport(jnp.zeros(()))


def equal_shares(unit: UnitGramian) -> tuple[jax.Array, jax.Array]:
    """a with Ca = 1 up to its scale, zero for zero rows, and its residual."""
    ones = unit.nonzero.astype(unit.norms.dtype)
    spectral = spectrum(unit.matrix)
    coordinates = dot(ones, spectral.vectors)
    # Part of the ones outside the range of C, when it is more than rounding, is all that remains.
    lost = jnp.sum(jnp.where(spectral.kept, 0, coordinates) ** 2)
    opposed = lost > jnp.finfo(ones.dtype).eps * jnp.sum(ones)
    inverse = jnp.where(spectral.kept, 1 / spectral.values, 0)
    inverse = jnp.where(opposed, (~spectral.kept).astype(ones.dtype), inverse)
    target = jnp.where(opposed, dot(spectral.vectors, inverse * coordinates), ones)
    shares = jnp.where(opposed, target, solve(unit, spectral, inverse, target))
    shares = jnp.where(unit.nonzero, shares, jnp.zeros_like(shares))
    return shares, jnp.where(opposed, 0, residual(unit, shares, ones))


def solve(
    unit: UnitGramian, spectral: Spectrum, inverse: jax.Array, target: jax.Array
) -> jax.Array:
    """V diag(inverse) Vᵀ target, refined once."""

    def apply(vector):
        return dot(spectral.vectors, inverse * dot(vector, spectral.vectors))

    shares = apply(target)
    return shares + apply(target - dot(unit.matrix, shares))


def residual(unit: UnitGramian, shares: jax.Array, target: jax.Array) -> jax.Array:
    projections = jnp.where(unit.nonzero, dot(unit.matrix, shares), 0)
    return jnp.max(jnp.abs(projections - target))


def dot(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision="highest")
