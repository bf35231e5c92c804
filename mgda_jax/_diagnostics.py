"""What to log about a multi-task step: pure functions of the Gramian and the weights."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mgda_jax._gramian import Gramian, as_gramian, norms


class Diagnostics(NamedTuple):
    """Geometry of the T task gradients and of the direction d = Σ_t w_t g_t.

    Attributes:
      cosines: (T, T) pairwise cosines, one on the diagonal; 0 beside a zero gradient.
      conflicts: () int32, pairs with ⟨g_s, g_t⟩ < 0.
      norms: (T,) ‖g_t‖.
      magnitude_similarity: (T, T) 2‖g_s‖‖g_t‖ / (‖g_s‖² + ‖g_t‖²), in [0, 1]; 0 beside
        a zero gradient.
      direction_cosines: (T,) cosine of g_t with d: negative where the step ascends task t.
      direction_norm: () ‖d‖.
      stationarity: () ‖d‖ / max_t ‖g_t‖; 0 where every gradient is zero.
    """

    cosines: jax.Array
    conflicts: jax.Array
    norms: jax.Array
    magnitude_similarity: jax.Array
    direction_cosines: jax.Array
    direction_norm: jax.Array
    stationarity: jax.Array


def diagnostics(gramian: Gramian | jax.typing.ArrayLike, weights: jax.Array) -> Diagnostics:
    """All of `Diagnostics` from one Gramian: O(T²), no gradient is touched.

    cos_st = M_st / √(M_ss M_tt); ⟨g_t, d⟩ = (M w)_t; ‖d‖² = wᵀ M w, summed as it
    stands, so ‖d‖ carries an error of about √ε · max ‖w_t g_t‖ near stationarity.

    Args:
      gramian: `Gramian`, or array (T, T).
      weights: (T,) task weights, any sign and scale.

    Returns:
      Diagnostics.

    Raises:
      ValueError: weights that are not (T,).

    Examples:
      >>> import jax.numpy as jnp
      >>> rows = jnp.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
      >>> d = diagnostics(rows @ rows.T, jnp.array([0.6, 0.4]))
      >>> int(d.conflicts), bool(jnp.all(d.direction_cosines > 0))
      (1, True)

    References:
      Yu et al., "Gradient Surgery for Multi-Task Learning", NeurIPS 2020, section 2
      (conflict, magnitude similarity).
    """
    gram = as_gramian(gramian)
    matrix = gram.matrix
    if weights.shape != matrix.shape[:1]:
        raise ValueError(f"weights: expected shape {matrix.shape[:1]}, got {weights.shape}")
    lengths = jnp.sqrt(jnp.maximum(jnp.diagonal(matrix), 0))
    unit = _ratio(matrix, lengths[:, None])
    cosines = jnp.clip(_ratio(unit, lengths[None, :]), -1, 1)
    larger = jnp.maximum(lengths[:, None], lengths[None, :])
    quotient = _ratio(jnp.minimum(lengths[:, None], lengths[None, :]), larger)
    # A rule that is not scale-free has weights of 1/‖g‖: only their ratios enter here.
    largest = jnp.max(jnp.abs(weights))
    relative = _ratio(weights, largest).astype(matrix.dtype)
    inner = jnp.einsum("st,t->s", matrix, relative, precision="highest")
    length = jnp.sqrt(jnp.maximum(jnp.sum(relative * inner), 0))
    upper = jnp.triu(jnp.ones_like(matrix, dtype=bool), 1)
    return Diagnostics(
        cosines=cosines,
        conflicts=jnp.sum((matrix < 0) & upper, dtype=jnp.int32),
        norms=norms(gram),
        magnitude_similarity=2 * quotient / (1 + quotient**2),
        direction_cosines=jnp.clip(_ratio(_ratio(inner, lengths), length), -1, 1),
        direction_norm=jnp.ldexp(length, gram.exponent) * largest.astype(length.dtype),
        stationarity=_ratio(length, jnp.max(lengths)) * largest.astype(length.dtype),
    )


def _ratio(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """numerator / denominator, 0 where the denominator is 0; NaN stays NaN."""
    zero = denominator == 0
    safe = jnp.where(zero, jnp.ones_like(denominator), denominator)
    return jnp.where(zero, jnp.zeros_like(numerator), numerator / safe)
