"""Many points at once that make the volume grow which they dominate together."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from experiments.toy.problem import ToyProblem, spread_starts
from experiments.toy.walk import POINTS, Walk, ground, measure
from mgda_jax import pareto


def walk_together(problem: ToyProblem, count: int, steps: int, learning_rate: float) -> Walk:
    """Adam on the hypervolume of `count` points, each point's weights of length one."""
    at = ground(problem)
    starts = spread_starts(problem.lower, problem.upper, count)
    # A point beyond the reference would stay where it is.
    worst = problem.values(starts).max(axis=0)
    corner = jnp.asarray(np.maximum(problem.reference(), 1.1 * worst), jnp.float32)
    tx = optax.adam(learning_rate)

    def step(carry: Any, _: Any) -> Any:
        thetas, state = carry
        values, rows = jax.vmap(at.gradients)(thetas)
        weights = -pareto.hypervolume_gradient(values, corner)
        norms = jnp.linalg.norm(weights, axis=1, keepdims=True)
        weights = weights / jnp.where(norms == 0, 1, norms)
        updates, state = tx.update(jnp.sum(weights[:, :, None] * rows, axis=1), state)
        moved: Any = optax.apply_updates(thetas, updates)
        return (jnp.clip(moved, at.lower[None], at.upper[None]), state), None

    @jax.jit
    def walk_all(starts: jax.Array) -> Any:
        def some_steps(carry: Any, _: Any) -> Any:
            carry, _ = lax.scan(step, carry, length=steps // POINTS)
            return carry, carry[0]

        _, paths = lax.scan(some_steps, (starts, tx.init(starts)), length=POINTS)
        paths = jnp.swapaxes(jnp.concatenate([starts[None], paths]), 0, 1)
        return jax.vmap(lambda path: measure(problem, at, path))(paths)

    return Walk(*map(np.asarray, walk_all(jnp.asarray(starts))))
