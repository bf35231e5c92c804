"""SDMGrad: weights by steps on inner products of independent batches, near a target."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from mgda_jax.solvers.simplex import simplex_projection
from mgda_jax.tasks import check_hyperparameter, check_int
from mgda_jax.weighting.arguments import check_preference, task_preference
from mgda_jax.weighting.base import Weighting
from mgda_jax.weighting.cross import init_simplex, keep_inactive, masked, on_active
from mgda_jax.weighting.division import one_for_zero
from mgda_jax.weighting.losses import count
from mgda_jax.weighting.origin import rule
from mgda_jax.weighting.unit_gramian import normalized

PyTree = Any


@rule
def sdmgrad(
    *,
    lam: float | jax.Array = 0.3,
    preference: PyTree = None,
    learning_rate: float | jax.Array = 5.0,
    momentum: float | jax.Array = 0.5,
    num_steps: int = 20,
) -> Weighting:
    """SDMGrad: MGDA drawn towards a preferred direction, its weights by projected SGD.

    w minimises ½‖Σ (w_t + λ c_t) g_t‖² over the simplex, c = 1/T, by num_steps steps of
    SGD with momentum, each projected on the simplex, with the stochastic gradient
    A(w + λc), A = J_1J_2ᵀ/s², s = mean_t √max(⟨g_t, h_t⟩, 0). The weights are
    (w + λc)/(1 + λ); w carries over to the next update. Where no ⟨g_t, h_t⟩ is positive,
    s² is the largest |⟨g_s, h_t⟩|. The batches come as in `modo`.

    Args:
      lam: λ ≥ 0, the pull towards c; 0 is MGDA by stochastic steps.
      preference: c up to its sum, (T,) array, sequence or dict of named scalars ≥ 0;
        ones by default.
      learning_rate: > 0, of the steps on w; 5 is the public benchmark's.
      momentum: in [0, 1).
      num_steps: ≥ 1, static.

    Returns:
      Weighting of scope "shared" that reads "cross_gramian" (a `Gramian` or an array
      (T, T)). Its weights lie on the simplex.

    Raises:
      ValueError: an argument out of its range; at update, a preference of another
        length.

    Examples:
      >>> import jax.numpy as jnp
      >>> rule = sdmgrad(lam=0.0, learning_rate=0.5)
      >>> cross = jnp.array([[3.0, 0.0], [0.0, 1.0]])
      >>> [round(float(w), 3) for w in rule.update(rule.init(2), cross_gramian=cross)[0]]
      [0.25, 0.75]

    References:
      Xiao, Ban and Ji, "Direction-oriented Multi-objective Learning: Simple and
      Provable Stochastic Algorithms", NeurIPS 2023, section 6.1 for s.
    """
    check_hyperparameter(lam, lambda x: x >= 0, "sdmgrad: lam must be >= 0")
    check_preference(preference, "sdmgrad")
    check_hyperparameter(learning_rate, lambda x: x > 0, "sdmgrad: learning_rate must be > 0")
    check_hyperparameter(momentum, lambda x: 0 <= x < 1, "sdmgrad: momentum must be in [0, 1)")
    num_steps = check_int(num_steps, lambda n: n >= 1, "sdmgrad: num_steps must be an int >= 1")

    def update(state, *, cross_gramian, active=None, **_):
        matrix, _, mask = masked(cross_gramian, active)
        dtype = matrix.dtype
        pull = jnp.asarray(lam, dtype)
        target = normalized(task_preference(preference, len(mask), dtype, active, "sdmgrad"))
        roots = jnp.sqrt(jnp.maximum(jnp.diagonal(matrix), 0))
        square = (jnp.sum(roots) / count(mask, dtype)) ** 2
        peak = jnp.max(jnp.abs(matrix))
        square = jnp.where(square == 0, peak, square)
        # Where the diagonal is far below the rest every step ends in a vertex, without overflow.
        square = jnp.maximum(square, peak * jnp.finfo(dtype).eps ** 2)
        scaled = matrix / one_for_zero(square)

        start = on_active(state.weights.astype(dtype), mask)
        rates = jnp.asarray(learning_rate, dtype), jnp.asarray(momentum, dtype)
        new = _descend(scaled, start, pull * target, mask, *rates, num_steps)
        weights = (new + pull * target) / (1 + pull)
        return weights, keep_inactive(state, new, mask)

    return Weighting(init_simplex, update, frozenset({"cross_gramian"}))


@functools.partial(jax.jit, static_argnames="num_steps")
def _descend(scaled, start, offset, mask, learning_rate, momentum, num_steps: int) -> jax.Array:
    """Projected SGD with momentum on ½ (w + offset)ᵀ A (w + offset)."""

    def step(_, carry):
        weights, velocity = carry
        velocity = momentum * velocity + jnp.matmul(scaled, weights + offset, precision="highest")
        return simplex_projection(weights - learning_rate * velocity, mask), velocity

    return lax.fori_loop(0, num_steps, step, (start, jnp.zeros_like(start)))[0]
