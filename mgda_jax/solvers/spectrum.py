"""Eigenvalues of a Gramian with a relative rank cut."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Spectrum(NamedTuple):
    """M = V Λ Vᵀ.

    Attributes:
      values: (T,) ascending, 1 where they count as zero so that they can divide.
      vectors: V, (T, T), one a column.
      kept: (T,) bool, the eigenvalues above the cut.
    """

    values: jax.Array
    vectors: jax.Array
    kept: jax.Array


def spectrum(matrix: jax.Array, rank_tolerance: float | jax.Array | None = None) -> Spectrum:
    """The eigenvalues λ > τ λ_max and their vectors, τ = T·eps by default.

    Below T·eps of the largest, an eigenvalue of a (T, T) matrix is rounding.

    Args:
      matrix: (T, T) positive semidefinite up to rounding. NaN in, NaN out.
      rank_tolerance: τ, relative.

    Returns:
      Spectrum.
    """
    values, vectors = jnp.linalg.eigh(matrix, symmetrize_input=False)
    rounding = len(matrix) * jnp.finfo(matrix.dtype).eps
    tolerance = rounding if rank_tolerance is None else rank_tolerance
    cut = jnp.asarray(tolerance, matrix.dtype) * jnp.maximum(values[-1], 0)
    # A NaN is kept, so that it is seen.
    kept = ~(values <= cut)
    return Spectrum(jnp.where(kept, values, jnp.ones_like(values)), vectors, kept)
