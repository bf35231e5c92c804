"""The paper's Algorithm 2: Frank–Wolfe with exact line search, to compare with."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from mgda_jax.solvers.linear_algebra import dot, matvec
from mgda_jax.solvers.min_norm.solution import residual, row_norms

# The residual to stop at, in units of eps.
_TOLERANCE = 4


@functools.partial(jax.jit, static_argnames="max_steps")
def frank_wolfe(
    matrix: jax.Array, active: jax.Array | None, max_steps: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Weights by Frank–Wolfe: each step moves towards the task that d serves least.

        t = argmin ⟨g_t, d⟩,   γ = argmin over [0, 1] of ‖(1 − γ) d + γ g_t‖,
        w ← (1 − γ) w + γ e_t,

    from equal weights until the certificate is at rounding level, γ is zero or
    max_steps is reached. It converges like 1/steps: seldom to rounding level.

    Args, returns: as `interior_point.interior_point`.

    References:
      Sener and Koltun, "Multi-Task Learning as Multi-Objective Optimization",
      NeurIPS 2018, Algorithms 1 and 2.
    """
    taking_part = jnp.ones(matrix.shape[0], bool) if active is None else active
    tolerance = _TOLERANCE * jnp.finfo(matrix.dtype).eps
    norms = row_norms(matrix)

    def unfinished(carry):
        _, done, step = carry
        return ~done & (step < max_steps)

    def body(carry):
        weights, _, step = carry
        along = matvec(matrix, weights)
        worst = jnp.argmin(jnp.where(taking_part, along, jnp.full_like(along, jnp.inf)))
        gamma = _line_search(matrix[worst, worst], dot(weights, along), along[worst])
        done = (gamma == 0) | (residual(norms, weights, along, active) <= tolerance)
        vertex = jax.nn.one_hot(worst, weights.size, dtype=weights.dtype)
        moved = (1 - gamma) * weights + gamma * vertex
        return jnp.where(done, weights, moved), done, step + 1

    weights = taking_part.astype(matrix.dtype)
    weights = weights / jnp.sum(weights)
    init = (weights, jnp.zeros((), bool), jnp.zeros((), jnp.int32))
    weights, _, steps = lax.while_loop(unfinished, body, init)
    weights = weights / jnp.sum(weights)
    return weights, weights > 0, steps


def _line_search(target: jax.Array, current: jax.Array, inner: jax.Array) -> jax.Array:
    """argmin over γ in [0, 1] of ‖(1 − γ) d + γ g‖ from ‖g‖², ‖d‖² and ⟨g, d⟩."""
    towards, away = current - inner, target - inner
    inside = towards / jnp.where(towards + away > 0, towards + away, jnp.ones_like(towards))
    return jnp.where(towards <= 0, jnp.zeros_like(inside), jnp.minimum(inside, 1))
