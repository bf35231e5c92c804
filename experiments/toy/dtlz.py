"""DTLZ1 to 4: three losses, fronts that are a piece of a plane or of a sphere.

References:
  Deb et al., Scalable Test Problems for Evolutionary Multiobjective Optimization, 2005.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from experiments.toy.problem import ToyProblem, box, lattice, spread_starts

_POSITION = 2  # numbers that say where on the front; the others have to be one half
_DISTANCE = {"dtlz1": 5, "dtlz2": 10, "dtlz3": 10, "dtlz4": 10}
_SIDE = 41


def _rugged(rest: jax.Array) -> jax.Array:
    """g of DTLZ1 and 3, with 11ᵏ − 1 local minima."""
    away = rest - 0.5
    return 100 * (rest.size + jnp.sum(away**2 - jnp.cos(20 * jnp.pi * away)))


def _smooth(rest: jax.Array) -> jax.Array:
    """g of DTLZ2 and 4."""
    return jnp.sum((rest - 0.5) ** 2)


def _plane(place: jax.Array, g: jax.Array) -> jax.Array:
    x, y = place
    return 0.5 * (1 + g) * jnp.stack([x * y, x * (1 - y), 1 - x])


def _sphere(place: jax.Array, g: jax.Array) -> jax.Array:
    x, y = place * jnp.pi / 2
    return (1 + g) * jnp.stack([jnp.cos(x) * jnp.cos(y), jnp.cos(x) * jnp.sin(y), jnp.sin(x)])


def dtlz1(theta: jax.Array) -> jax.Array:
    """Σ L = 1/2, behind many local fronts."""
    return _plane(theta[:2], _rugged(theta[2:]))


def dtlz2(theta: jax.Array) -> jax.Array:
    """‖L‖ = 1."""
    return _sphere(theta[:2], _smooth(theta[2:]))


def dtlz3(theta: jax.Array) -> jax.Array:
    """‖L‖ = 1, behind many local fronts."""
    return _sphere(theta[:2], _rugged(theta[2:]))


def dtlz4(theta: jax.Array) -> jax.Array:
    """‖L‖ = 1, with nearly all points at its edges: the first numbers enter as 100th powers."""
    return _sphere(theta[:2] ** 100, _smooth(theta[2:]))


def _pareto_set(name: str) -> np.ndarray:
    points = np.full((_SIDE**2, _POSITION + _DISTANCE[name]), 0.5)
    points[:, :_POSITION] = lattice(_POSITION, _SIDE)
    return points


def _plane_front(count: int) -> np.ndarray:
    x, y = lattice(2, math.isqrt(count)).T
    return np.unique(0.5 * np.stack([x * y, x * (1 - y), 1 - x], axis=1), axis=0)


def _sphere_front(count: int) -> np.ndarray:
    x, y = (lattice(2, math.isqrt(count)) * np.pi / 2).T
    points = np.stack([np.cos(x) * np.cos(y), np.cos(x) * np.sin(y), np.sin(x)], axis=1)
    return np.unique(np.round(points, 12), axis=0)


_ABOUT = {
    "dtlz1": "DTLZ1: a plane, behind many local fronts",
    "dtlz2": "DTLZ2: a piece of the sphere",
    "dtlz3": "DTLZ3: the sphere, behind many local fronts",
    "dtlz4": "DTLZ4: the sphere, most points at its edges",
}
_LOSSES = {"dtlz1": dtlz1, "dtlz2": dtlz2, "dtlz3": dtlz3, "dtlz4": dtlz4}


def _problem(name: str) -> ToyProblem:
    bounds = box(0, 1, _POSITION + _DISTANCE[name])
    front = _plane_front if name == "dtlz1" else _sphere_front
    return ToyProblem(
        _ABOUT[name],
        _LOSSES[name],
        *bounds,
        lambda: _pareto_set(name),
        front,
        spread_starts(*bounds),
        reached=0.1,
    )


PROBLEMS = {name: _problem(name) for name in _LOSSES}
