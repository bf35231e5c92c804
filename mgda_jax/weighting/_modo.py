"""MoDo: a step of the weights on the inner products of two independent batches."""

import jax
import jax.numpy as jnp

from mgda_jax.solvers.simplex import shifted_step, simplex_projection
from mgda_jax.tasks import check_hyperparameter
from mgda_jax.weighting.base import Weighting
from mgda_jax.weighting.cross import init_simplex, keep_inactive, masked, on_active
from mgda_jax.weighting.origin import rule


@rule
def modo(*, gamma: float | jax.Array = 1e-3, rho: float | jax.Array = 0.1) -> Weighting:
    """MoDo: one projected step on the weights per update, with double sampling.

    λ ← Π(λ − γ (J_1 J_2ᵀ λ + ρλ)), Π the projection on the simplex, λ = 1/T at first;
    the direction is Σ λ_t g_t. J_1, J_2 are the task gradients of two independent
    batches, so that J_1 J_2ᵀλ is an unbiased estimate; the Gramian of one batch is
    not. γ and ρ are as absolute as the paper has them: γ has the unit of one over a
    squared gradient. NaN or Inf in the inner products gives NaN.

    The two batches come as an extra argument, and the direction from a third
    (or from the first two's mean):

        one = task_gradients(losses_fn)(params, batch_1)[1]
        two = task_gradients(losses_fn)(params, batch_2)[1]
        three = task_gradients(losses_fn)(params, batch_3)[1]
        updates, state = tx.update(three, state, params, cross_gramian=cross_gramian(one, two))

    The rule reads no Gramian of its own, so in the oracle the third batch costs a
    plain step: `oracle(shared, own, batch_3, state, cross_gramian=...)`.

    Args:
      gamma: γ > 0.
      rho: ρ ≥ 0.

    Returns:
      Weighting of scope "shared" that reads "cross_gramian" (a `Gramian` or an array
      (T, T)). Its weights lie on the simplex.

    Raises:
      ValueError: a concrete γ or ρ out of its range.

    Examples:
      >>> import jax.numpy as jnp
      >>> rule = modo(gamma=0.5, rho=0.0)
      >>> cross = jnp.array([[2.0, 0.0], [0.0, 1.0]])
      >>> rule.update(rule.init(2), cross_gramian=cross)[0]
      Array([0.375, 0.625], dtype=float32)

    References:
      Chen et al., "Three-Way Trade-Off in Multi-Objective Learning: Optimization,
      Generalization and Conflict-Avoidance", NeurIPS 2023.
    """
    check_hyperparameter(gamma, lambda x: x > 0, "modo: gamma must be > 0")
    check_hyperparameter(rho, lambda x: x >= 0, "modo: rho must be >= 0")

    def update(state, *, cross_gramian, active=None, **_):
        matrix, exponent, mask = masked(cross_gramian, active)
        last = on_active(state.weights.astype(matrix.dtype), mask)
        rate = jnp.asarray(gamma, matrix.dtype)
        pull = rate * jnp.matmul(matrix, last, precision="highest")
        decay = rate * jnp.asarray(rho, matrix.dtype) * last
        new = simplex_projection(last - decay - shifted_step(pull, exponent, mask), mask)
        return new, keep_inactive(state, new, mask)

    return Weighting(init_simplex, update, frozenset({"cross_gramian"}))
