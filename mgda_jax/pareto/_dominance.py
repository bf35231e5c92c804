"""Which points are better than which: dominance, the non-dominated set, the fronts behind it."""

import jax
import jax.numpy as jnp
from jax import lax

from mgda_jax.pareto._points import check_points


def dominates(a: jax.Array, b: jax.Array) -> jax.Array:
    """Whether point a is nowhere worse than b and somewhere better.

    a ≺ b ⇔ a_t ≤ b_t for all t and a_t < b_t for some t.

    Args:
      a: (..., T) losses.
      b: (..., T) losses, same shape.

    Returns:
      (...) bool; False where an entry is NaN.

    Raises:
      ValueError: shapes that differ.

    Examples:
      >>> import jax.numpy as jnp
      >>> dominates(jnp.array([1.0, 2.0]), jnp.array([1.0, 3.0]))
      Array(True, dtype=bool)
    """
    if a.shape != b.shape or a.ndim == 0:
        raise ValueError(f"dominates: expected two shapes (..., T) alike, got {a.shape}, {b.shape}")
    return jnp.all(a <= b, axis=-1) & jnp.any(a < b, axis=-1)


def non_dominated(points: jax.Array) -> jax.Array:
    """Which points no other point dominates; copies of a point all stay.

    Args:
      points: (N, T) losses.

    Returns:
      (N,) bool; a point with a NaN neither dominates nor stays.

    Raises:
      ValueError: points that are not (N, T).

    Examples:
      >>> import jax.numpy as jnp
      >>> non_dominated(jnp.array([[1.0, 3.0], [2.0, 2.0], [3.0, 3.0]]))
      Array([ True,  True, False], dtype=bool)
    """
    check_points(points)
    return ~jnp.any(_pairs(points), axis=0) & ~jnp.any(jnp.isnan(points), axis=1)


def fronts(points: jax.Array) -> jax.Array:
    """Non-dominated sorting: front 0 is the non-dominated set, front k that of what is left.

    F_k = { p ∉ F_0 ∪ … ∪ F_{k−1} : no q outside of them dominates p }; O(N² T), memory N².

    Args:
      points: (N, T) losses.

    Returns:
      (N,) int32, the number of each point's front; −1 for a point with a NaN.

    Raises:
      ValueError: points that are not (N, T).

    Examples:
      >>> import jax.numpy as jnp
      >>> fronts(jnp.array([[1.0, 3.0], [2.0, 2.0], [3.0, 3.0], [3.0, 4.0]]))
      Array([0, 0, 1, 2], dtype=int32)

    References:
      Deb et al., "A fast and elitist multiobjective genetic algorithm: NSGA-II", 2002.
    """
    check_points(points)
    above, known = _pairs(points), ~jnp.any(jnp.isnan(points), axis=1)

    def some_left(carry):
        return jnp.any(carry[1])

    def peel(carry):
        number, left, found = carry
        front = left & ~jnp.any(above & left[:, None], axis=0)
        return number + 1, left & ~front, jnp.where(front, number, found)

    start = (jnp.int32(0), known, jnp.full(len(points), -1, jnp.int32))
    # Every peel takes a point at least: dominance has no cycles.
    return lax.while_loop(some_left, peel, start)[2]


def _pairs(points: jax.Array) -> jax.Array:
    """(N, N) bool, entry [i, j] whether point i dominates point j."""
    return jax.vmap(lambda a: jax.vmap(lambda b: dominates(a, b))(points))(points)
