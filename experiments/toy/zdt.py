"""ZDT1 to 4 and 6: many numbers in a box, of which all but the first have to vanish.

References:
  Zitzler, Deb and Thiele, Comparison of Multiobjective Evolutionary Algorithms: Empirical
  Results, Evolutionary Computation 2000.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from experiments.toy.problem import ToyProblem, box, spread_starts

_SIZE = {"zdt1": 30, "zdt2": 30, "zdt3": 30, "zdt4": 10, "zdt6": 10}


def zdt1(theta: jax.Array) -> jax.Array:
    """L2 = g (1 − √(L1/g)) with g = 1 + 9 mean of the others: a convex front."""
    g = 1 + 9 * jnp.mean(theta[1:])
    return jnp.stack([theta[0], g * (1 - jnp.sqrt(theta[0] / g))])


def zdt2(theta: jax.Array) -> jax.Array:
    """L2 = g (1 − (L1/g)²): a concave front."""
    g = 1 + 9 * jnp.mean(theta[1:])
    return jnp.stack([theta[0], g * (1 - (theta[0] / g) ** 2)])


def zdt3(theta: jax.Array) -> jax.Array:
    """L2 = g (1 − √(L1/g) − L1/g sin 10πL1): a front in five pieces."""
    g = 1 + 9 * jnp.mean(theta[1:])
    share = theta[0] / g
    return jnp.stack(
        [theta[0], g * (1 - jnp.sqrt(share) - share * jnp.sin(10 * jnp.pi * theta[0]))]
    )


def zdt4(theta: jax.Array) -> jax.Array:
    """ZDT1 with a g of 21⁹ local minima."""
    rest = theta[1:]
    g = 1 + 10 * rest.size + jnp.sum(rest**2 - 10 * jnp.cos(4 * jnp.pi * rest))
    return jnp.stack([theta[0], g * (1 - jnp.sqrt(theta[0] / g))])


def zdt6(theta: jax.Array) -> jax.Array:
    """ZDT2 with L1 = 1 − exp(−4θ₁) sin⁶ 6πθ₁ and a g that is steep at its minimum."""
    first = 1 - jnp.exp(-4 * theta[0]) * jnp.sin(6 * jnp.pi * theta[0]) ** 6
    g = 1 + 9 * jnp.mean(theta[1:]) ** 0.25
    return jnp.stack([first, g * (1 - (first / g) ** 2)])


def _on_edge(name: str, first: np.ndarray) -> np.ndarray:
    """The Pareto set: all numbers zero but the first."""
    points = np.zeros((len(first), _SIZE[name]))
    points[:, 0] = first
    return points


def _pieces(count: int = 401) -> np.ndarray:
    """The first number on ZDT3's front: where no smaller one has a smaller L2."""
    first = np.linspace(0, 1, 5 * count)
    second = _zdt3_front(first)
    before = np.append(np.inf, np.minimum.accumulate(second)[:-1])
    return first[second < before]


def _zdt3_front(first: np.ndarray) -> np.ndarray:
    return 1 - np.sqrt(first) - first * np.sin(10 * np.pi * first)


def _graph(first: np.ndarray, second: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    return np.stack([first, second(first)], axis=1)


def _convex(first: np.ndarray) -> np.ndarray:
    return 1 - np.sqrt(first)


def _concave(first: np.ndarray) -> np.ndarray:
    return 1 - first**2


# The least L1 of ZDT6, at the θ₁ near 1/12 where tan 6πθ₁ = 9π.
_LEAST = 0.2807753191
_ABOUT = {
    "zdt1": "ZDT1: a convex front",
    "zdt2": "ZDT2: a concave front",
    "zdt3": "ZDT3: a front in five pieces",
    "zdt4": "ZDT4: many local fronts",
    "zdt6": "ZDT6: a concave front, unevenly reached",
}
_LOSSES = {"zdt1": zdt1, "zdt2": zdt2, "zdt3": zdt3, "zdt4": zdt4, "zdt6": zdt6}
_FRONT: dict[str, Callable[[int], np.ndarray]] = {
    "zdt1": lambda count: _graph(np.linspace(0, 1, count), _convex),
    "zdt2": lambda count: _graph(np.linspace(0, 1, count), _concave),
    "zdt3": lambda count: _graph(_pieces(count), _zdt3_front),
    "zdt4": lambda count: _graph(np.linspace(0, 1, count), _convex),
    "zdt6": lambda count: _graph(np.linspace(_LEAST, 1, count), _concave),
}


def _problem(name: str) -> ToyProblem:
    lower, upper = box(0, 1, _SIZE[name])
    if name == "zdt4":
        lower[1:], upper[1:] = -5, 5
    return ToyProblem(
        _ABOUT[name],
        _LOSSES[name],
        lower,
        upper,
        lambda: _on_edge(name, _pieces() if name == "zdt3" else np.linspace(0, 1, 401)),
        _FRONT[name],
        spread_starts(lower, upper),
    )


PROBLEMS = {name: _problem(name) for name in _LOSSES}
