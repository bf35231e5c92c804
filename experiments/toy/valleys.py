"""The toy of CAGrad and Nash-MTL: two losses in the plane with valleys that hold walks up.

References:
  Liu et al., Conflict-Averse Gradient Descent for Multi-task Learning, NeurIPS 2021.
  Navon et al., Multi-Task Learning as a Bargaining Game, ICML 2022.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from experiments.toy.problem import ToyProblem, box

STARTS = np.array(
    [(-8.5, 7.5), (-8.5, -5.0), (9.0, 9.0), (0.0, 0.0), (-7.5, -0.5), (9.0, -1.0)], np.float32
)


def losses(theta: jax.Array) -> jax.Array:
    """The two losses at a point.

    Above θ₂ = 0 they are logarithmic valleys f_i, below it two paraboloids g_i with minima at
    (±7, −8.43); tanh(θ₂/2) leads from one to the other. The first counts a tenth.

    Args:
      theta: (2,).

    Returns:
      (2,).
    """
    x, y = theta
    valleys = jnp.stack([0.5 * (-x - 7) - jnp.tanh(-y), 0.5 * (-x + 3) + jnp.tanh(-y) + 2])
    f = jnp.log(jnp.maximum(jnp.abs(valleys), 5e-6)) + 6
    g = ((-x + jnp.array([7.0, -7.0])) ** 2 + 0.1 * (-y - 8) ** 2) / 10 - 20
    above, below = jnp.maximum(jnp.tanh(0.5 * y), 0), jnp.maximum(jnp.tanh(-0.5 * y), 0)
    return jnp.array([0.1, 1.0]) * (above * f + below * g)


@functools.cache
def pareto_set(points: int = 281) -> np.ndarray:
    """The arc between the minima, (points, 2), where the two gradients are opposed.

    At each θ₁ the gradients' cross product changes its sign once in θ₂; bisection finds where.
    """
    x = jnp.linspace(-7.0, 7.0, points)[1:-1]

    def cross(y: jax.Array) -> jax.Array:
        first, second = jnp.moveaxis(jax.vmap(jax.jacrev(losses))(jnp.stack([x, y], 1)), 1, 0)
        return first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]

    def halve(_: int, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = ends
        middle = (low + high) / 2
        same = jnp.sign(cross(middle)) == jnp.sign(cross(low))
        return jnp.where(same, middle, low), jnp.where(same, high, middle)

    @jax.jit
    def arc() -> jax.Array:
        start = (jnp.full_like(x, -9.0), jnp.full_like(x, -8.0))
        low, high = lax.fori_loop(0, 30, halve, start)
        return jnp.stack([x, (low + high) / 2], axis=1)

    return np.asarray(arc())


def front(count: int) -> np.ndarray:
    """The image of the arc in float64; the formula is that of the losses below θ₂ = 0."""
    x, y = pareto_set(count).astype(np.float64).T
    below = np.tanh(-0.5 * y)
    valley = 0.1 * (-y - 8) ** 2
    paraboloids = np.stack([(-x + 7) ** 2 + valley, (-x - 7) ** 2 + valley], axis=1) / 10 - 20
    return np.array([0.1, 1.0]) * below[:, None] * paraboloids


PROBLEMS = {
    "valleys": ToyProblem(
        about="the toy of CAGrad and Nash-MTL, L1 times 0.1",
        losses=losses,
        lower=box(-10, 10, 2)[0],
        upper=box(-10, 10, 2)[1],
        pareto_set=pareto_set,
        front=front,
        starts=STARTS,
        steps=35_000,
        learning_rate=1e-3,
        reached=0.1,  # the arc's ends are 14 apart
    )
}
