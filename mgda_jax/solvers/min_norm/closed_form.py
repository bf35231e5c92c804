"""The min-norm point of one and of two gradients."""

import jax
import jax.numpy as jnp


def one(matrix: jax.Array) -> jax.Array:
    """Weights (1,): all on the only task."""
    return jnp.ones(1, matrix.dtype)


def two(matrix: jax.Array) -> jax.Array:
    """Weights (2,): w ∝ (max(‖g₂‖² − c, 0), max(‖g₁‖² − c, 0)), c = ⟨g₁, g₂⟩.

    Each weight is computed by itself: 1 − w₁ cancels completely when the norms
    are far apart, and then the weight that is lost is the one that matters. Where c
    is no less than either diagonal entry, the shorter gradient has it all.

    Args:
      matrix: (2, 2) Gramian.

    Returns:
      Weights (2,); (½, ½) for equal gradients.
    """
    inner = matrix[0, 1]
    first, second = jnp.maximum(matrix[1, 1] - inner, 0), jnp.maximum(matrix[0, 0] - inner, 0)
    total = first + second
    equal = total == 0
    total = jnp.where(equal, jnp.ones_like(total), total)
    weights = jnp.stack([first / total, second / total])
    shorter = (1 + jnp.sign(matrix[1, 1] - matrix[0, 0])) / 2
    return jnp.where(equal, jnp.stack([shorter, 1 - shorter]), weights)
