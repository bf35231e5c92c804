"""NTKMTL: weights from the traces of the tasks' neural tangent kernels."""

import jax
import jax.numpy as jnp
import optax

from mgda_jax.tasks import check_hyperparameter
from mgda_jax.weighting.base import Weighting
from mgda_jax.weighting.division import one_for_zero
from mgda_jax.weighting.origin import rule
from mgda_jax.weighting.unit_gramian import active_gramian


@rule
def ntkmtl(*, exponent: float | jax.Array = 0.5) -> Weighting:
    """NTKMTL: weights that even out the tasks' convergence speeds in their tangent kernels.

    w_t = (Σ_s λ_s / λ_t)^p, λ_t the largest eigenvalue of the tangent kernel of task
    t. With one batch a task (n = 1, the authors' setting) the kernel is the number
    λ_t = ‖g_t‖². At p = ½ all w_t g_t have one length. On the Gramian of a
    representation this is NTKMTL-SR with n = 1. A zero gradient has the weight zero.

    Args:
      exponent: p ≥ 0; ½ in the paper, the authors recommend trying up to ¾.

    Returns:
      Weighting of scope "shared" that reads "gramian".

    Raises:
      ValueError: a concrete exponent that is negative.

    Examples:
      >>> import jax.numpy as jnp
      >>> rule = ntkmtl()
      >>> rule.update(rule.init(2), gramian=jnp.diag(jnp.array([9.0, 16.0])))[0]
      Array([1.6666666, 1.25     ], dtype=float32)

    References:
      Qin et al., "NTKMTL: Mitigating Task Imbalance in Multi-Task Learning from
      Neural Tangent Kernel Perspective", NeurIPS 2025.
    """
    check_hyperparameter(exponent, lambda x: x >= 0, "ntkmtl: exponent must not be negative")

    def init(num_tasks: int) -> optax.EmptyState:
        del num_tasks
        return optax.EmptyState()

    def update(state, *, gramian, active=None, **_):
        matrix = active_gramian(gramian, active).matrix
        speeds = jnp.diagonal(matrix)
        shares = jnp.sum(speeds) / one_for_zero(speeds)
        weights = jnp.power(shares, jnp.asarray(exponent, speeds.dtype))
        finite = jnp.all(jnp.isfinite(matrix))
        weights = jnp.where(speeds == 0, jnp.zeros_like(weights), weights)
        return jnp.where(finite, weights, jnp.nan), state

    return Weighting(init, update)
