"""The Euclidean projection on the simplex, and steps on it of any magnitude."""

import jax
import jax.numpy as jnp


def simplex_projection(point: jax.Array, mask: jax.Array) -> jax.Array:
    """argmin ‖w − y‖ over w ≥ 0, Σ w = 1, w_t = 0 outside the mask; zero for an empty mask.

    w = max(y − θ, 0) with θ from the sorted entries.

    Args:
      point: y, (T,).
      mask: (T,) bool.

    Returns:
      w, (T,).

    Examples:
      >>> import jax.numpy as jnp
      >>> simplex_projection(jnp.array([0.9, 0.5, -3.0]), jnp.ones(3, bool))
      Array([0.7, 0.3, 0. ], dtype=float32)

    References:
      Held, Wolfe and Crowder, "Validation of subgradient optimization", 1974.
    """
    dtype = point.dtype
    top = jnp.max(jnp.where(mask, point, -jnp.inf))
    # Entries more than one below the largest are zero in the answer.
    relative = jnp.where(mask, jnp.maximum(point - top, -1), -1)
    ordered = -jnp.sort(-relative)
    ranks = jnp.arange(1, len(point) + 1).astype(dtype)
    thresholds = (jnp.cumsum(ordered) - 1) / ranks
    kept = jnp.sum(ordered > thresholds)
    threshold = jnp.take(thresholds, jnp.maximum(kept - 1, 0))
    return jnp.where(mask, jnp.maximum(relative - threshold, 0), jnp.zeros_like(point))


def shifted_step(gradient: jax.Array, exponent: jax.Array, mask: jax.Array) -> jax.Array:
    """4^exponent · (v − min v) over the mask, at most the largest finite number; zero elsewhere.

    Softmax and the projection on the simplex do not feel the shift.
    """
    gradient = jnp.where(mask, gradient, jnp.inf)
    shifted = jnp.where(mask, gradient - jnp.min(gradient), jnp.zeros_like(gradient))
    return jnp.minimum(jnp.ldexp(shifted, 2 * exponent), jnp.finfo(gradient.dtype).max)
