"""Two paraboloids, VLMOP1 to 3 and Fonseca: few numbers, fronts of every kind.

References:
  Van Veldhuizen and Lamont, Multiobjective Evolutionary Algorithm Test Suites, SAC 1999.
  Fonseca and Fleming, An Overview of Evolutionary Algorithms in Multiobjective Optimization,
  Evolutionary Computation 1995.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments.toy.problem import ToyProblem, box, lattice, only_best, spread_starts


def paraboloids(theta: jax.Array) -> jax.Array:
    """‖θ ∓ 1/√n‖² / 4: √L1 + √L2 = 1, a convex front."""
    center = 1 / np.sqrt(np.float32(theta.size))
    return jnp.stack([jnp.sum((theta - center) ** 2), jnp.sum((theta + center) ** 2)]) / 4


def vlmop1(theta: jax.Array) -> jax.Array:
    """θ² and (θ − 2)²: √L1 + √L2 = 2, a convex front."""
    return jnp.stack([theta[0] ** 2, (theta[0] - 2) ** 2])


def fonseca(theta: jax.Array) -> jax.Array:
    """1 − exp(−‖θ ∓ 1/√n‖²): a concave front, of which weighted sums reach the ends alone."""
    return 1 - jnp.exp(-4 * paraboloids(theta))


def vlmop3(theta: jax.Array) -> jax.Array:
    """Three losses in the plane; the Pareto set is of two pieces."""
    x, y = theta
    radius = x**2 + y**2
    return jnp.stack(
        [
            0.5 * radius + jnp.sin(radius),
            (3 * x - 2 * y + 4) ** 2 / 8 + (x - y + 1) ** 2 / 27 + 15,
            1 / (radius + 1) - 1.1 * jnp.exp(-radius),
        ]
    )


def _diagonal(size: int, count: int = 401) -> np.ndarray:
    """The segment between the centres of two paraboloids."""
    t = np.linspace(-1, 1, count) / np.sqrt(size)
    return np.repeat(t[:, None], size, axis=1)


def _root_front(total: float, count: int) -> np.ndarray:
    """√L1 + √L2 = total."""
    first = np.linspace(0, total, count) ** 2
    return np.stack([first, (total - np.sqrt(first)) ** 2], axis=1)


def _fonseca_front(count: int) -> np.ndarray:
    """(1 − L1, 1 − L2) = (exp(−(s − 1)²), exp(−(s + 1)²)) with s in [−1, 1]."""
    s = np.linspace(1, -1, count)
    return np.stack([1 - np.exp(-((s - 1) ** 2)), 1 - np.exp(-((s + 1) ** 2))], axis=1)


@functools.cache
def _vlmop3_set() -> np.ndarray:
    """No formula is known: the points of a grid of which no other dominates one."""
    grid = lattice(2, 121) * 6 - 3
    values = _vlmop3_values(grid)
    best = {tuple(row) for row in only_best(values)}
    return grid[[tuple(row) in best for row in values]]


def _vlmop3_values(points: np.ndarray) -> np.ndarray:
    x, y = points.T
    radius = x**2 + y**2
    first = 0.5 * radius + np.sin(radius)
    second = (3 * x - 2 * y + 4) ** 2 / 8 + (x - y + 1) ** 2 / 27 + 15
    return np.stack([first, second, 1 / (radius + 1) - 1.1 * np.exp(-radius)], axis=1)


def _on_diagonal(about, losses, front, lower, upper, size) -> ToyProblem:
    bounds = box(lower, upper, size)
    return ToyProblem(
        about, losses, *bounds, lambda: _diagonal(size), front, spread_starts(*bounds)
    )


PROBLEMS = {
    "paraboloids": _on_diagonal(
        "two paraboloids in the plane, a convex front",
        paraboloids,
        lambda count: _root_front(1, count),
        -2,
        2,
        2,
    ),
    "vlmop1": ToyProblem(
        "VLMOP1: two parabolas of one number, a convex front",
        vlmop1,
        *box(-2, 4, 1),
        lambda: np.linspace(0, 2, 401)[:, None],
        lambda count: _root_front(2, count),
        spread_starts(*box(-2, 4, 1)),
    ),
    "vlmop2": _on_diagonal(
        "VLMOP2: two bells in the plane, a concave front", fonseca, _fonseca_front, -2, 2, 2
    ),
    "vlmop3": ToyProblem(
        "VLMOP3: three losses in the plane, a front in pieces (of a grid: no formula is known)",
        vlmop3,
        *box(-3, 3, 2),
        _vlmop3_set,
        lambda _: _vlmop3_values(_vlmop3_set()),
        spread_starts(*box(-3, 3, 2)),
        reached=0.1,  # the grid is 0.05 wide
    ),
    "fonseca": _on_diagonal("Fonseca: VLMOP2 in three numbers", fonseca, _fonseca_front, -4, 4, 3),
}
