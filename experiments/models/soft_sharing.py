"""Soft sharing: every task has an encoder of its own, tied to the others by an L2 penalty.

No parameters are shared and there is no common representation, so that MGDA-UB has nothing to
stand on. What the tasks have in common is the penalty: task t minimises

    L_t(θ_t) + (λ / 2) Σ_s ‖θ_t − θ_s‖²

over all encoders θ_1 … θ_T, and these objectives do conflict: exact MGDA through
`mgda_jax.task_gradients` weighs them, all encoders together being its shared parameters.

References:
  Duong, Cohn, Bird and Cook, Low Resource Dependency Parsing: Cross-lingual Parameter Sharing
  in a Neural Network Parser, ACL 2015.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments.models.dense import Dense
from experiments.models.lenet import split

PyTree = Any


class SoftShared(NamedTuple):
    """The model as pure functions.

    Attributes:
      init: `init(key) -> (encoders, heads)`: encoders' leaves stacked over tasks, sorted by
        name; heads a dict by task.
      predict: `predict(encoders, heads, x) -> {task: (N, outputs)}`.
    """

    init: Callable[[jax.Array], tuple[PyTree, dict[str, PyTree]]]
    predict: Callable[[PyTree, PyTree, jax.Array], dict[str, jax.Array]]


def soft_sharing(
    inputs: int, outputs: Mapping[str, int], *, sizes: Sequence[int] = (64, 32)
) -> SoftShared:
    """A dense encoder and a dense layer per task.

    Args:
      inputs: features of the inputs x (N, inputs).
      outputs: {task: size of its output}.
      sizes: layers of an encoder.

    Returns:
      SoftShared.

    Examples:
      >>> model = soft_sharing(5, {"a": 1, "b": 3})
      >>> encoders, heads = model.init(jax.random.key(0))
      >>> model.predict(encoders, heads, jnp.ones((2, 5)))["b"].shape
      (2, 3)
    """
    tasks = sorted(outputs)
    encoder = split(lambda rngs: Dense((inputs, *sizes), last_relu=True, rngs=rngs))
    heads = {
        task: split(lambda rngs, size=outputs[task]: Dense((sizes[-1], size), rngs=rngs))
        for task in tasks
    }

    def init(key: jax.Array) -> tuple[PyTree, dict[str, PyTree]]:
        encoder_key, *keys = jax.random.split(key, 1 + len(tasks))
        encoders = jax.vmap(encoder.init)(jax.random.split(encoder_key, len(tasks)))
        own = {task: heads[task].init(k) for task, k in zip(tasks, keys, strict=True)}
        return encoders, own

    def predict(encoders: PyTree, own: PyTree, x: jax.Array) -> dict[str, jax.Array]:
        zs = jax.vmap(lambda params: encoder.apply(params, x))(encoders)
        return {task: heads[task].apply(own[task], z) for task, z in zip(tasks, zs, strict=True)}

    return SoftShared(init, predict)


def distances(encoders: PyTree) -> jax.Array:
    """(T,) half the sum of squared distances of each task's encoder from all others."""

    def leaf(stacked: jax.Array) -> jax.Array:
        flat = stacked.reshape(len(stacked), -1)
        return jnp.sum((flat[:, None] - flat[None]) ** 2, axis=(1, 2)) / 2

    return jax.tree.reduce(jnp.add, jax.tree.map(leaf, encoders))
