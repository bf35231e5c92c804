"""The Gramian of unit rows: what scale-aware rules solve on, and the preference they share."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mgda_jax._gramian import Gramian, as_gramian, normalize
from mgda_jax.weighting.division import one_for_zero

PyTree = Any


class UnitGramian(NamedTuple):
    """C_st = ⟨g_s, g_t⟩ / (‖g_s‖ ‖g_t‖), with the norms beside it.

    A rule solved on C does not feel rows of different length. Tasks that are
    inactive or have a zero gradient are replaced by a unit row orthogonal to all
    others, of norm one, and marked.

    Attributes:
      matrix: C, (T, T), unit diagonal; NaN throughout when an active entry of
        the Gramian is not finite or its diagonal is negative.
      norms: (T,) ‖g_t‖ · 2^−exponent, 1 for the tasks marked.
      nonzero: (T,) bool, false for the tasks marked.
      exponent: () int32, of the Gramian.
    """

    matrix: jax.Array
    norms: jax.Array
    nonzero: jax.Array
    exponent: jax.Array


def unit_gramian(
    gramian: Gramian | jax.typing.ArrayLike, active: jax.Array | None = None
) -> UnitGramian:
    """The Gramian of the unit rows g_t / ‖g_t‖ of the active tasks."""
    matrix, exponent = active_gramian(gramian, active)
    norms = jnp.sqrt(jnp.diagonal(matrix))
    nonzero = norms != 0
    norms = jnp.where(nonzero, norms, jnp.ones_like(norms))
    # Row by row and column by column, because ‖g_s‖ ‖g_t‖ may underflow.
    cosines = matrix / norms[:, None] / norms[None, :]
    finite = jnp.all(jnp.isfinite(cosines))
    identity = jnp.eye(len(norms), dtype=matrix.dtype)
    pairs = nonzero[:, None] & nonzero[None, :] & (identity == 0)
    unit = jnp.where(pairs, jnp.clip(cosines, -1, 1), identity)
    return UnitGramian(jnp.where(finite, unit, jnp.nan), norms, nonzero, exponent)


def active_gramian(
    gramian: Gramian | jax.typing.ArrayLike, active: jax.Array | None = None
) -> Gramian:
    """The Gramian with the rows and columns of inactive tasks zero, whatever they hold.

    Args:
      gramian: `Gramian` or array (T, T).
      active: (T,) bool, or None for all.

    Returns:
      Gramian.

    Examples:
      >>> import jax.numpy as jnp
      >>> given = jnp.array([[jnp.nan, jnp.nan], [jnp.nan, 0.25]])
      >>> active_gramian(given, jnp.array([False, True])).matrix
      Array([[0.  , 0.  ],
             [0.  , 0.25]], dtype=float32)
    """
    if active is None:
        return as_gramian(gramian)
    # Before anything looks at the entries: those of inactive tasks may be NaN.
    both = active[:, None] & active[None, :]
    if isinstance(gramian, Gramian):
        matrix = jnp.where(both, gramian.matrix, jnp.zeros_like(gramian.matrix))
        return normalize(gramian._replace(matrix=matrix))
    matrix = jnp.asarray(gramian)
    return as_gramian(jnp.where(both, matrix, jnp.zeros_like(matrix)))


def normalized(vector: jax.Array) -> jax.Array:
    """The vector divided by its sum, or zeros where that is zero (no task is active)."""
    return vector / one_for_zero(jnp.sum(vector))
