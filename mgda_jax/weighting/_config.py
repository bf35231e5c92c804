"""ConFIG: equal cosines with all gradients, and a length that follows from them."""

from typing import Any

import jax.numpy as jnp

from mgda_jax.solvers.spectrum import spectrum
from mgda_jax.weighting.arguments import check_preference, preference_vector
from mgda_jax.weighting.base import Weighting
from mgda_jax.weighting.division import divide
from mgda_jax.weighting.equal_shares import EqualReport, dot, init_equal, residual, solve
from mgda_jax.weighting.origin import rule
from mgda_jax.weighting.unit_gramian import unit_gramian

PyTree = Any


@rule
def config(*, preference: PyTree = None) -> Weighting:
    """ConFIG: the direction with the same cosine to every task, its length that of all projections.

    d = (Σ_t ⟨g_t, v⟩) v with v the unit vector along U⁺c, U the unit rows, c = 1: at full
    rank ⟨u_t, v⟩ is the same for all t. With other c the cosines are as c. U⁺ is the
    pseudo-inverse, computed from the Gramian C of the unit rows: eigenvalues up to
    T·eps of the largest count as zero. d = 0 where c is orthogonal to the range of
    C (an opposed pair). A zero gradient is left out.

    Args:
      preference: c up to its scale, (T,) array, sequence or dict of named scalars
        ≥ 0; ones by default.

    Returns:
      Weighting of scope "shared" that reads "gramian".

    Raises:
      ValueError: a concrete preference that is negative, not finite or all zero;
        at update, one of another length.

    Examples:
      >>> import jax.numpy as jnp
      >>> rule = config()
      >>> weights, _ = rule.update(rule.init(2), gramian=jnp.array([[1.0, 0.0], [0.0, 9.0]]))
      >>> weights.round(4)
      Array([2.    , 0.6667], dtype=float32)

    References:
      Liu, Chu and Thuerey, "ConFIG: Towards Conflict-free Training of Physics
      Informed Neural Networks", ICLR 2025, equation (2).
    """
    check_preference(preference, "config")

    def update(state, *, gramian, active=None, **_):
        del state
        unit = unit_gramian(gramian, active)
        cosines = preference_vector(preference, unit, active, "config")
        cosines = jnp.where(unit.nonzero, cosines, jnp.zeros_like(cosines))
        size = jnp.max(cosines)
        cosines = cosines / jnp.where(size == 0, jnp.ones_like(size), size)
        spectral = spectrum(unit.matrix)
        coordinates = jnp.where(spectral.kept, dot(cosines, spectral.vectors), 0)
        # What is left of c in the range of C, when it is nothing but rounding.
        unseen = jnp.sum(coordinates**2) <= jnp.finfo(size.dtype).eps * jnp.sum(cosines**2)
        coordinates = jnp.where(unseen, jnp.zeros_like(coordinates), coordinates)
        projections = dot(spectral.vectors, coordinates)
        inverse = jnp.where(spectral.kept, 1 / spectral.values, 0)
        shares = solve(unit, spectral, inverse, projections)
        length = jnp.sum(jnp.where(unit.nonzero, unit.norms * projections, 0))
        weights = divide(shares, jnp.sum(shares * projections)) * length / unit.norms
        return weights, EqualReport(residual(unit, shares, cosines))

    return Weighting(init_equal, update)
