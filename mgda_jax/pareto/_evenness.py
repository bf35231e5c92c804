"""How evenly points lie along a front: spacing and spread."""

import jax
import jax.numpy as jnp

from mgda_jax.pareto._points import check_points


def spacing(points: jax.Array) -> jax.Array:
    """Schott's spacing: the standard deviation of the distances to the nearest neighbour.

    √( 1/(N − 1) Σ_i (d_i − d̄)² ), d_i = min_{j≠i} Σ_t |p_it − p_jt|; 0 is even.

    Args:
      points: (N, T) losses, N ≥ 2, usually non-dominated ones.

    Returns:
      () in the losses' units; NaN where an entry is.

    Raises:
      ValueError: points that are not (N, T) with N ≥ 2.

    Examples:
      >>> import jax.numpy as jnp
      >>> spacing(jnp.array([[0.0, 2.0], [1.0, 1.0], [2.0, 0.0]]))
      Array(0., dtype=float32)

    References:
      Schott, "Fault Tolerant Design Using Single and Multicriteria Genetic Algorithm
      Optimization", 1995.
    """
    check_points(points)
    if len(points) < 2:
        raise ValueError(f"spacing: expected two points or more, got shape {points.shape}")

    def nearest(i):
        distances = jnp.sum(jnp.abs(points - points[i][None]), axis=1)
        return jnp.min(jnp.where(jnp.arange(len(points)) == i, jnp.inf, distances))

    found = jnp.std(jax.lax.map(nearest, jnp.arange(len(points))), ddof=1)
    return jnp.where(jnp.any(jnp.isnan(points)), jnp.nan, found)


def spread(points: jax.Array, ends: jax.Array) -> jax.Array:
    """Deb's spread Δ of points on a front of two losses: 0 is even and as wide as the front.

    Δ = (d_f + d_l + Σ_i |d_i − d̄|) / (d_f + d_l + (N − 1) d̄), with d_i the distances of
    neighbours along the front, d_f and d_l those of its ends to the first and last point.

    Args:
      points: (N, 2) losses, N ≥ 2, none of which dominates another.
      ends: (2, 2) the two ends of the true front, in any order.

    Returns:
      () without a unit; NaN where an entry is, or where all points are one end twice.

    Raises:
      ValueError: shapes that do not fit; another number of losses, for which Δ is not defined.

    Examples:
      >>> import jax.numpy as jnp
      >>> front = jnp.array([[0.0, 2.0], [1.0, 1.0], [2.0, 0.0]])
      >>> jax.jit(spread)(front, front[::2])
      Array(0., dtype=float32)

    References:
      Deb et al., "A fast and elitist multiobjective genetic algorithm: NSGA-II", 2002.
    """
    check_points(points, num_tasks=2)
    if len(points) < 2 or ends.shape != (2, 2):
        raise ValueError(
            f"spread: expected points (N, 2) with N >= 2 and ends (2, 2), got {points.shape}, "
            f"{ends.shape}"
        )
    ordered = points[jnp.lexsort((-points[:, 1], points[:, 0]))]
    borders = ends[jnp.argsort(ends[:, 0])]
    gaps = jnp.linalg.norm(ordered[1:] - ordered[:-1], axis=1)
    outside = jnp.linalg.norm(borders[0] - ordered[0]) + jnp.linalg.norm(borders[1] - ordered[-1])
    mean = jnp.mean(gaps)
    uneven = outside + jnp.sum(jnp.abs(gaps - mean))
    return uneven / (outside + (len(points) - 1) * mean)
