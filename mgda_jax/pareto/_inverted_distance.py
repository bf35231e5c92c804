"""How far the true front is from the points found: IGD and IGD+."""

import jax
import jax.numpy as jnp

from mgda_jax.pareto._points import check_points


def igd(points: jax.Array, front: jax.Array) -> jax.Array:
    """Inverted generational distance: how far, on average, the front is from the points.

    1/M Σ_j min_i ‖z_j − p_i‖. It rewards nearness and width, in the losses' own units; a
    dominated point can lower it, which IGD+ forbids.

    Args:
      points: (N, T) losses found.
      front: (M, T) points z of the true front.

    Returns:
      () distance; NaN where an entry is.

    Raises:
      ValueError: shapes that do not fit.

    Examples:
      >>> import jax.numpy as jnp
      >>> igd(jnp.array([[0.0, 1.0]]), jnp.array([[0.0, 1.0], [3.0, 5.0]]))
      Array(2.5, dtype=float32)

    References:
      Coello Coello and Reyes Sierra, "A Study of the Parallelization of a Coevolutionary
      Multi-objective Evolutionary Algorithm", MICAI 2004.
    """
    return _mean_distance(points, front, lambda difference: difference)


def igd_plus(points: jax.Array, front: jax.Array) -> jax.Array:
    """IGD+: as `igd`, counting only what a point is worse in.

    1/M Σ_j min_i ‖max(p_i − z_j, 0)‖. Weakly Pareto compliant: a set that dominates another
    is never said to be worse.

    Args:
      points: (N, T) losses found.
      front: (M, T) points z of the true front.

    Returns:
      () distance; NaN where an entry is.

    Raises:
      ValueError: shapes that do not fit.

    Examples:
      >>> import jax.numpy as jnp
      >>> igd_plus(jnp.array([[0.0, 1.0]]), jnp.array([[0.0, 1.0], [3.0, 5.0]]))
      Array(0., dtype=float32)

    References:
      Ishibuchi et al., "Modified Distance Calculation in Generational Distance and Inverted
      Generational Distance", EMO 2015.
    """
    return _mean_distance(points, front, lambda difference: jnp.maximum(difference, 0))


def _mean_distance(points, front, part):
    check_points(points)
    check_points(front, "front", points.shape[1])

    def nearest(z):
        return jnp.min(jnp.linalg.norm(part(points - z[None]), axis=1))

    # One point of the front after the other: memory N T, whatever M.
    mean = jnp.mean(jax.lax.map(nearest, front))
    known = ~(jnp.any(jnp.isnan(points)) | jnp.any(jnp.isnan(front)))
    return jnp.where(known, mean, jnp.nan)
