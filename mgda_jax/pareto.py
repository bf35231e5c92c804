"""Sets of trade-offs: dominance, the non-dominated set, hypervolume. Lower losses are better."""

import jax
import jax.numpy as jnp
from jax import lax

__all__ = ["dominates", "hypervolume", "non_dominated"]


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
    _check_points(points)
    others = jax.vmap(lambda a: jax.vmap(lambda b: dominates(a, b))(points))(points)
    return ~jnp.any(others, axis=0) & ~jnp.any(jnp.isnan(points), axis=1)


def hypervolume(points: jax.Array, reference: jax.Array) -> jax.Array:
    """The volume that the points dominate, up to a reference point; exact.

    λ( ∪_i [p_i, r] ), by slicing along the last loss: O(N log N) for T = 2, and a
    factor of N in time and memory for every further loss. It is differentiable
    almost everywhere.

    Args:
      points: (N, T) losses, T ≥ 2; points beyond the reference add nothing.
      reference: (T,) the worst losses that still count.

    Returns:
      () volume in the product of the losses' units; NaN when an entry is NaN.

    Raises:
      ValueError: shapes that do not fit.

    Examples:
      >>> import jax.numpy as jnp
      >>> hypervolume(jnp.array([[1.0, 2.0], [2.0, 1.0]]), jnp.array([3.0, 3.0]))
      Array(3., dtype=float32)

    References:
      Zitzler and Thiele, "Multiobjective Optimization Using Evolutionary
      Algorithms – A Comparative Case Study", PPSN 1998.
    """
    _check_points(points)
    if points.shape[1] < 2 or reference.shape != points.shape[1:]:
        raise ValueError(
            "hypervolume: expected points (N, T) with T >= 2 and reference (T,), got "
            f"{points.shape}, {reference.shape}"
        )
    top = jnp.broadcast_to(reference, points.shape)
    outside = jnp.any(points >= top, axis=1)
    # The reference itself dominates nothing, so it stands in for points that do not count.
    return _sliced(jnp.where(outside[:, None], top, points), reference)


def _sliced(points: jax.Array, reference: jax.Array) -> jax.Array:
    ordered = points[jnp.argsort(points[:, -1])]
    last = jnp.append(ordered[:, -1], reference[-1])
    thickness = last[1:] - last[:-1]
    if points.shape[1] == 2:
        return jnp.sum(thickness * (reference[0] - lax.cummin(ordered[:, 0])))
    front, corner = ordered[:, :-1], reference[:-1]

    def section(count):
        inside = (jnp.arange(len(front)) <= count)[:, None]
        return _sliced(jnp.where(inside, front, jnp.broadcast_to(corner, front.shape)), corner)

    return jnp.sum(thickness * jax.vmap(section)(jnp.arange(len(front))))


def _check_points(points: jax.Array) -> None:
    if points.ndim != 2 or 0 in points.shape:
        raise ValueError(f"points: expected shape (N, T), got {points.shape}")
