"""Sets of networks by preference: all written by one hypernetwork, or each trained alone.

References:
  Navon et al., Learning the Pareto Front with Hypernetworks, ICLR 2021.
  Lin et al., Controllable Pareto Multi-Task Learning, 2020.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

PyTree = Any


class NetworkSet(NamedTuple):
    """Networks by preference, and which preferences a step trains.

    Attributes:
      init: `init(key) -> params`.
      networks: `networks(params, preferences (P, T)) -> θ`, leaves (P, *shape).
      draw: `draw(key) -> preferences (P, T)` of a step, positive, with sum one.
      shares: whether the networks of a step share its batch out; else each gets all of it.
    """

    init: Callable[[jax.Array], PyTree]
    networks: Callable[[PyTree, jax.Array], PyTree]
    draw: Callable[[jax.Array], jax.Array]
    shares: bool


def hypernetwork(
    init_target: Callable[[jax.Array], PyTree],
    width: int,
    draw: Callable[[jax.Array], jax.Array],
    num_tasks: int,
) -> NetworkSet:
    """θ(r) = θ₀ + f(r) W / width, f two hidden layers and W a linear head for every parameter.

    θ₀ is drawn as the target network's own parameters are, and W begins at zero: every
    preference begins with the same network. The division makes a step of Adam move θ as far
    through W as through θ₀.

    Args:
      init_target: `init_target(key) -> θ`, a pytree of float32.
      width: units of both hidden layers.
      draw: the preferences of a step.
      num_tasks: T.

    Returns:
      NetworkSet.
    """
    like = jax.eval_shape(init_target, jax.random.key(0))
    flat, unravel = ravel_pytree(jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), like))

    def init(key: jax.Array) -> PyTree:
        start, first, second = jax.random.split(key, 3)
        normal = jax.nn.initializers.he_normal()
        return {
            "first": {"kernel": normal(first, (num_tasks, width)), "bias": jnp.zeros(width)},
            "second": {"kernel": normal(second, (width, width)), "bias": jnp.zeros(width)},
            "start": ravel_pytree(init_target(start))[0],
            "directions": jnp.zeros((width, flat.size)),
        }

    def networks(params: PyTree, preferences: jax.Array) -> PyTree:
        x = preferences
        for layer in (params["first"], params["second"]):
            x = jax.nn.relu(x @ layer["kernel"] + layer["bias"])
        return jax.vmap(unravel)(params["start"] + x @ params["directions"] / width)

    return NetworkSet(init, networks, draw, shares=True)


def separate(init_target: Callable[[jax.Array], PyTree], preferences: np.ndarray) -> NetworkSet:
    """One network of its own for each of some preferences (K, T), trained side by side."""
    fixed = jnp.asarray(preferences)
    return NetworkSet(
        init=lambda key: jax.vmap(init_target)(jax.random.split(key, len(fixed))),
        networks=lambda params, _: params,
        draw=lambda _: fixed,
        shares=False,
    )


def dirichlet(alpha: float, num_tasks: int, count: int) -> Callable[[jax.Array], jax.Array]:
    """`draw(key) -> (count, T)` from Dirichlet(α, …, α), kept off the simplex's boundary."""
    inside = 1e-3  # rules of a ray divide by it

    def draw(key: jax.Array) -> jax.Array:
        drawn = jax.random.dirichlet(key, jnp.full(num_tasks, alpha), (count,))
        return (drawn + inside) / (1 + num_tasks * inside)

    return draw
