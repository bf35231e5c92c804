"""Soft sharing: every task has an encoder of its own, tied to the others by an L2 penalty.

No parameters are shared and there is no common representation, so that MGDA-UB has nothing to
stand on. What the tasks have in common is the penalty: task t minimises

    L_t(θ_t) + (λ / 2) Σ_s ‖θ_t − θ_s‖²

over all encoders θ_1 … θ_T, and these objectives do conflict: exact MGDA weighs them, all
encoders together being its shared parameters.

References:
  Duong, Cohn, Bird and Cook, Low Resource Dependency Parsing: Cross-lingual Parameter Sharing
  in a Neural Network Parser, ACL 2015.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments.models.dense import Dense, SharedModel
from experiments.models.lenet import split

PyTree = Any


class Apart(NamedTuple):
    """What the heads read: an encoder's output per task, and how far the encoders are apart.

    As a part of z the distances have a gradient there, which a term of the loss that reads
    shared parameters past z would not.

    Attributes:
      features: (T, N, features).
      distances: (T,), see `distances`.
    """

    features: jax.Array
    distances: jax.Array


def soft_sharing(
    inputs: int, outputs: Mapping[str, int], *, sizes: Sequence[int] = (64, 32)
) -> SharedModel:
    """A dense encoder and a dense layer per task.

    Args:
      inputs: features of the inputs x (N, inputs).
      outputs: {task: size of its output}.
      sizes: layers of an encoder.

    Returns:
      SharedModel with z `Apart`, tasks sorted, the encoders' leaves stacked over tasks; a loss
      adds λ z.distances[t]. For exact MGDA.

    Examples:
      >>> model = soft_sharing(5, {"a": 1, "b": 3})
      >>> encoders, own = model.init(jax.random.key(0))
      >>> z = model.encode(encoders, jnp.ones((2, 5)))
      >>> model.heads["b"](own["b"], z, None).shape
      (2, 3)
    """
    tasks = sorted(outputs)
    encoder = split(lambda rngs: Dense((inputs, *sizes), last_relu=True, rngs=rngs))
    layers = {
        task: split(lambda rngs, size=outputs[task]: Dense((sizes[-1], size), rngs=rngs))
        for task in tasks
    }

    def init(key: jax.Array) -> tuple[PyTree, dict[str, PyTree]]:
        encoder_key, *keys = jax.random.split(key, 1 + len(tasks))
        encoders = jax.vmap(encoder.init)(jax.random.split(encoder_key, len(tasks)))
        own = {task: layers[task].init(k) for task, k in zip(tasks, keys, strict=True)}
        return encoders, own

    def encode(encoders: PyTree, x: jax.Array) -> Apart:
        features = jax.vmap(lambda params: encoder.apply(params, x))(encoders)
        return Apart(features, distances(encoders))

    def reading(t: int, apply: Any) -> Any:
        return lambda own, z, x: apply(own, z.features[t])

    heads = {task: reading(t, layers[task].apply) for t, task in enumerate(tasks)}
    return SharedModel(init, encode, heads)


def distances(encoders: PyTree) -> jax.Array:
    """(T,) half the sum of squared distances of each task's encoder from all others."""

    def leaf(stacked: jax.Array) -> jax.Array:
        flat = stacked.reshape(len(stacked), -1)
        return jnp.sum((flat[:, None] - flat[None]) ** 2, axis=(1, 2)) / 2

    return jax.tree.reduce(jnp.add, jax.tree.map(leaf, encoders))
