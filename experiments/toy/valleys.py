"""The toy of CAGrad and Nash-MTL: two losses in the plane with valleys that hold walks up.

References:
  Liu et al., Conflict-Averse Gradient Descent for Multi-task Learning, NeurIPS 2021.
  Navon et al., Multi-Task Learning as a Bargaining Game, ICML 2022.
"""

import jax
import jax.numpy as jnp
import numpy as np

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


def pareto_set(points: int = 281) -> np.ndarray:
    """The arc between the minima, (points − 2, 2), where the two gradients are opposed.

    At each θ₁ the gradients' cross product changes its sign once in θ₂; bisection finds where.
    """
    x = np.linspace(-7, 7, points)[1:-1]
    low, high = np.full_like(x, -9.0), np.full_like(x, -8.0)
    before = _cross(x, low) > 0
    for _ in range(50):
        middle = (low + high) / 2
        same = (_cross(x, middle) > 0) == before
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    return np.stack([x, (low + high) / 2], axis=1)


def _cross(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """∂₁L1 ∂₂L2 − ∂₂L1 ∂₁L2 below θ₂ = 0, where L_t = s g_t and s = tanh(−θ₂/2)."""
    s = np.tanh(-y / 2)
    across = [s * (x - side) / 5 for side in (7, -7)]
    down = [
        -(1 - s**2) / 2 * (((x - side) ** 2 + 0.1 * (y + 8) ** 2) / 10 - 20) + s * (y + 8) / 50
        for side in (7, -7)
    ]
    return across[0] * down[1] - down[0] * across[1]


def front(count: int) -> np.ndarray:
    """The image of the arc in float64; the formula is that of the losses below θ₂ = 0."""
    x, y = pareto_set(count).T
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
