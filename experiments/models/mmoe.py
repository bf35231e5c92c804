"""Multi-gate mixture of experts: every task mixes the same experts with a gate of its own.

Shared: the experts. Own: gate and tower of each task. The representation is what all experts
say, (N, experts, features): each task reads it through its own gate, so both exact MGDA and
MGDA-UB apply.

References:
  Ma, Zhao, Yi, Chen, Hong and Chi, Modeling Task Relationships in Multi-task Learning with
  Multi-gate Mixture-of-Experts, KDD 2018.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.models.dense import Dense, SharedModel
from experiments.models.lenet import split

PyTree = Any


class Tower(nnx.Module):
    """A task's gate over the experts, and its layers on their mixture."""

    def __init__(
        self, inputs: int, experts: int, features: int, hidden: int, outputs: int, *, rngs: nnx.Rngs
    ):
        self.gate = nnx.Linear(inputs, experts, use_bias=False, rngs=rngs)
        self.layers = Dense((features, hidden, outputs), rngs=rngs)

    def __call__(self, z: jax.Array, x: jax.Array) -> jax.Array:
        """z (N, experts, features) and inputs x (N, inputs) → (N, outputs)."""
        share = jax.nn.softmax(self.gate(x))
        return self.layers(jnp.einsum("ne,nef->nf", share, z))


def mmoe(
    inputs: int,
    outputs: Mapping[str, int],
    *,
    experts: int = 4,
    sizes: Sequence[int] = (64, 32),
    hidden: int = 16,
) -> SharedModel:
    """The model as pure functions.

    Args:
      inputs: features of the inputs x (N, inputs).
      outputs: {task: size of its output}.
      experts: how many.
      sizes: layers of an expert; the last is the size of its output.
      hidden: hidden units of a tower.

    Returns:
      SharedModel with z (N, experts, sizes[-1]).

    Examples:
      >>> model = mmoe(5, {"a": 1, "b": 3})
      >>> shared, own = model.init(jax.random.key(0))
      >>> x = jnp.ones((2, 5))
      >>> model.heads["b"](own["b"], model.encode(shared, x), x).shape
      (2, 3)
    """
    expert = split(lambda rngs: Dense((inputs, *sizes), last_relu=True, rngs=rngs))
    towers = {
        task: split(
            lambda rngs, size=size: Tower(inputs, experts, sizes[-1], hidden, size, rngs=rngs)
        )
        for task, size in outputs.items()
    }

    def init(key: jax.Array) -> tuple[PyTree, dict[str, PyTree]]:
        expert_key, tower_key = jax.random.split(key)
        keys = dict(zip(towers, jax.random.split(tower_key, len(towers)), strict=True))
        shared = jax.vmap(expert.init)(jax.random.split(expert_key, experts))
        return shared, {task: tower.init(keys[task]) for task, tower in towers.items()}

    def encode(shared: PyTree, x: jax.Array) -> jax.Array:
        return jax.vmap(lambda params: expert.apply(params, x), out_axes=1)(shared)

    return SharedModel(init, encode, {task: tower.apply for task, tower in towers.items()})
