"""The Euclidean projection on the simplex, and steps on it of any magnitude."""

import jax
import jax.numpy as jnp


def simplex_projection(point: jax.Array, mask: jax.Array) -> jax.Array:
    """argmin ‖w − y‖ over w ≥ 0, Σ w = 1, w_t = 0 outside the mask; zero for an empty mask.

    w = max(y − θ, 0) with θ from the sorted entries. NaN or Inf within the mask gives NaN.

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
    nearest = jnp.maximum(relative - threshold, 0)
    # Rounding of θ counts once for every entry that is kept.
    nearest = nearest / jnp.sum(nearest)
    # Said and not left to max and sort: XLA's reductions on the CPU drop a NaN in large batches.
    nearest = jnp.where(jnp.all(jnp.isfinite(point) | ~mask), nearest, jnp.nan)
    return jnp.where(mask, nearest, jnp.zeros_like(point))


def shifted_step(gradient: jax.Array, exponent: jax.Array, mask: jax.Array) -> jax.Array:
    """4^exponent · (v − min v) over the mask, at most 2^60; zero elsewhere.

    Softmax and the projection on the simplex do not feel the shift, nor the difference
    between 2^60 and more. Differences of 4 eps of the largest |v| are rounding and count as
    none: a huge factor would blow them up, and fused programs round them differently.
    NaN or Inf in v gives NaN.
    """
    used = jnp.where(mask, gradient, jnp.zeros_like(gradient))
    mantissas, powers = jnp.frexp(jnp.max(jnp.abs(used)))
    power = jnp.clip(powers.astype(jnp.int32), -120, 120)
    relative = used * jnp.ldexp(jnp.ones_like(mantissas), -power)
    least = jnp.min(jnp.where(mask, relative, jnp.inf))
    shifted = jnp.where(mask, relative - least, jnp.zeros_like(relative))
    rounding = 4 * jnp.finfo(gradient.dtype).eps
    shifted = jnp.where(shifted <= rounding, jnp.zeros_like(shifted), shifted)
    # The factor is finite and normal, so that zero times it is zero.
    factor = jnp.ldexp(jnp.ones_like(least), jnp.clip(2 * exponent + power, -120, 120))
    step = jnp.minimum(shifted * factor, 2.0**60)
    finite = jnp.all(jnp.isfinite(used))
    return jnp.where(mask, jnp.where(finite, step, jnp.nan), jnp.zeros_like(step))
