"""MoDo and SDMGrad: task weights by steps on inner products of independent batches."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mgda_jax.gramian import Gramian
from mgda_jax.gramian import gramian as form_gramian
from mgda_jax.tasks import check_hyperparameter
from mgda_jax.weighting.base import Weighting
from mgda_jax.weighting.positive import count
from mgda_jax.weighting.simplex import shifted_step, simplex_projection
from mgda_jax.weighting.unit_gramian import check_preference, normalized, task_preference

PyTree = Any


class SimplexState(NamedTuple):
    """State of a rule that moves weights on the simplex.

    Attributes:
      weights: λ (T,), on the simplex.
    """

    weights: jax.Array


def cross_gramian(first: PyTree, second: PyTree, *, active: jax.Array | None = None) -> Gramian:
    """The inner products ⟨g_s, h_t⟩ of the gradients of two batches: J_1 J_2ᵀ.

    Neither symmetric nor positive in general. Formed as a block of the Gramian of both,
    so precision, scale and sharding are those of `gramian`.

    Args:
      first: g, a pytree whose every leaf is (T, *shape).
      second: h, of the same structure and shapes.
      active: (T,) bool or None; rows of inactive tasks are replaced by zeros.

    Returns:
      Gramian with matrix (T, T), to be given as `cross_gramian=`.

    Raises:
      ValueError: as `gramian`.

    Examples:
      >>> import jax.numpy as jnp
      >>> cross = cross_gramian(jnp.array([[1.0, 0.0]]), jnp.array([[-3.0, 4.0]]))
      >>> cross.matrix * 4.0 ** cross.exponent
      Array([[-3.]], dtype=float32)
    """
    both = jax.tree.map(_stack, first, second)
    num_tasks = jax.tree.leaves(first)[0].shape[0]
    active = None if active is None else jnp.concatenate([active, active])
    matrix, exponent = form_gramian(both, active=active)
    return Gramian(matrix[:num_tasks, num_tasks:], exponent)


def modo(*, gamma: float | jax.Array = 1e-3, rho: float | jax.Array = 0.1) -> Weighting:
    """MoDo: one projected step on the weights per update, with double sampling.

    λ ← Π(λ − γ (J_1 J_2ᵀ λ + ρλ)), Π the projection on the simplex, λ = 1/T at first;
    the direction is Σ λ_t g_t. J_1, J_2 are the task gradients of two independent
    batches, so that J_1 J_2ᵀλ is an unbiased estimate; the Gramian of one batch is
    not. γ and ρ are as absolute as the paper has them: γ has the unit of one over a
    squared gradient.

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
        matrix, exponent, mask = _masked(cross_gramian, active)
        last = _on_active(state.weights.astype(matrix.dtype), mask)
        rate = jnp.asarray(gamma, matrix.dtype)
        pull = rate * jnp.matmul(matrix, last, precision="highest")
        decay = rate * jnp.asarray(rho, matrix.dtype) * last
        new = simplex_projection(last - decay - shifted_step(pull, exponent, mask), mask)
        return new, _keep_inactive(state, new, mask)

    return Weighting(_init, update, frozenset({"cross_gramian"}))


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
    if isinstance(num_steps, bool) or not isinstance(num_steps, int) or num_steps < 1:
        raise ValueError(f"sdmgrad: num_steps must be an int >= 1, got {num_steps!r}")

    def update(state, *, cross_gramian, active=None, **_):
        matrix, _, mask = _masked(cross_gramian, active)
        dtype = matrix.dtype
        pull = jnp.asarray(lam, dtype)
        target = normalized(task_preference(preference, len(mask), dtype, active, "sdmgrad"))
        roots = jnp.sqrt(jnp.maximum(jnp.diagonal(matrix), 0))
        square = (jnp.sum(roots) / count(mask, dtype)) ** 2
        square = jnp.where(square == 0, jnp.max(jnp.abs(matrix)), square)
        scaled = matrix / jnp.where(square == 0, jnp.ones_like(square), square)

        def step(_, carry):
            weights, velocity = carry
            gradient = jnp.matmul(scaled, weights + pull * target, precision="highest")
            velocity = jnp.asarray(momentum, dtype) * velocity + gradient
            moved = weights - jnp.asarray(learning_rate, dtype) * velocity
            return simplex_projection(moved, mask), velocity

        start = _on_active(state.weights.astype(dtype), mask)
        new, _ = lax.fori_loop(0, num_steps, step, (start, jnp.zeros_like(start)))
        weights = (new + pull * target) / (1 + pull)
        return weights, _keep_inactive(state, new, mask)

    return Weighting(_init, update, frozenset({"cross_gramian"}))


def _init(num_tasks: int) -> SimplexState:
    return SimplexState(jnp.ones(num_tasks) / num_tasks)


def _masked(cross: Any, active: jax.Array | None) -> tuple[jax.Array, jax.Array, jax.Array]:
    """matrix with zeros for inactive tasks and its largest entry of order one, exponent, mask."""
    if isinstance(cross, Gramian):
        matrix, exponent = cross
    else:
        matrix, exponent = jnp.asarray(cross), jnp.zeros((), jnp.int32)
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise ValueError(
                f"cross_gramian: expected a Gramian or an array (T, T), got shape {matrix.shape}"
            )
    mask = jnp.ones(len(matrix), bool) if active is None else active
    matrix = jnp.where(mask[:, None] & mask[None, :], matrix, jnp.zeros_like(matrix))
    peak = jnp.max(jnp.abs(matrix))
    shift = jnp.frexp(jnp.where(jnp.isfinite(peak), peak, jnp.ones_like(peak)))[1] // 2
    # Twice by 2^-shift and not once by 4^-shift, which need not be representable.
    scale = jnp.ldexp(jnp.ones_like(peak), -shift)
    return matrix * scale * scale, exponent + shift, mask


def _on_active(weights: jax.Array, mask: jax.Array) -> jax.Array:
    """The weights of the active tasks, scaled to sum one; equal ones where they were all zero."""
    kept = jnp.where(mask, weights, jnp.zeros_like(weights))
    equal = mask.astype(weights.dtype)
    return normalized(jnp.where(jnp.sum(kept) == 0, equal, kept))


def _keep_inactive(state: SimplexState, new: jax.Array, mask: jax.Array) -> SimplexState:
    """Inactive tasks keep their weights, the active ones their sum."""
    old = state.weights.astype(new.dtype)
    total = jnp.sum(jnp.where(mask, old, jnp.zeros_like(old)))
    return SimplexState(jnp.where(mask, total * new, old))


def _stack(first: jax.Array, second: jax.Array) -> jax.Array:
    if first.dtype == jax.dtypes.float0:
        return first
    return jnp.concatenate([first, second])
