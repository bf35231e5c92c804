"""What PCGrad and GradVac share: random orders, and weights of gradients corrected one by one."""

import jax
import jax.numpy as jnp
from jax import lax

from mgda_jax.weighting.arguments import active_mask
from mgda_jax.weighting.losses import count


def random_orders(key: jax.Array, num_tasks: int) -> jax.Array:
    """T independent uniform permutations of 0 … T−1, (T, T) int32, one a row."""
    # Random high bits over the index: one sort of single words, three times as fast as argsort.
    low = jnp.uint32((1 << max(num_tasks - 1, 1).bit_length()) - 1)
    shape = (num_tasks, num_tasks)
    high = jax.random.bits(key, shape, jnp.uint32) & ~low
    return (jnp.sort(high | lax.broadcasted_iota(jnp.uint32, shape, 1), axis=1) & low).astype(
        jnp.int32
    )


def others(j: jax.Array) -> jax.Array:
    return j != jnp.arange(len(j), dtype=j.dtype)


def corrected_weights(unit, order, steps, active, one, reduction):
    """Σ_i ‖g_i‖ (e_i + Σ_j step_ij e_j) / ‖g_j‖ over the active i, in weights of the rows."""
    mask = active_mask(active, len(one))
    length = jnp.where(mask, unit.norms, jnp.zeros_like(one))
    added = jnp.zeros_like(one).at[order.T].add(steps * length[None, :])
    # `one` is 1, or NaN when the Gramian is not finite.
    weights = jnp.where(mask, one, jnp.zeros_like(one)) + added / unit.norms
    return weights / count(mask, weights.dtype) if reduction == "mean" else weights
