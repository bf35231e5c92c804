"""NNX modules with BatchNorm as pure functions of their variables."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

PyTree = Any


class Variables(NamedTuple):
    """All variables of a module: one pytree, of which only params has gradients other than zero.

    Attributes:
      params: what is trained.
      stats: running statistics, read in evaluation only.
    """

    params: PyTree
    stats: PyTree


class StatefulModule(NamedTuple):
    """A module split into functions.

    Attributes:
      init: `init(key) -> Variables`.
      apply: `apply(variables, *args, train) -> (out, stats)`, stats as they are afterwards:
        moved by this forward pass where train, else the same.
      eval_shape: `eval_shape() -> Variables` of shapes, at no cost.
    """

    init: Callable[[jax.Array], Variables]
    apply: Callable[..., tuple[Any, PyTree]]
    eval_shape: Callable[[], Variables]


def normal_param(shape: tuple[int, ...], std: float) -> nnx.Param:
    """A parameter that `StatefulModule.init` draws from a normal distribution."""
    return nnx.Param(jnp.zeros(shape), std=std)


def split_stateful(make: Callable[[], nnx.Module]) -> StatefulModule:
    """The pure functions of a module whose call takes `train` as a keyword.

    Args:
      make: `make() -> module`, with variables of type Param and BatchStat. What is random of
        them is a `normal_param`.

    Returns:
      StatefulModule.
    """
    graph = nnx.graphdef(nnx.eval_shape(make))

    def init(key: jax.Array) -> Variables:
        module = make()
        params = _draw(nnx.state(module, nnx.Param), key)
        return Variables(params, nnx.state(module, nnx.BatchStat))

    def apply(variables: Variables, *args: Any, train: bool) -> tuple[Any, PyTree]:
        # copy=True: the merged module must not share variables with an outer trace.
        module = nnx.merge(graph, variables.params, variables.stats, copy=True)
        out = module(*args, train=train)
        return out, nnx.state(module, nnx.BatchStat)

    def eval_shape() -> Variables:
        return jax.eval_shape(init, jax.random.key(0))

    return StatefulModule(init, apply, eval_shape)


def _draw(params: PyTree, key: jax.Array) -> PyTree:
    """Every `normal_param` drawn, all in one: one generator a layer takes seconds to compile."""
    variables, structure = jax.tree.flatten(params, is_leaf=lambda v: isinstance(v, nnx.Param))
    random = [v for v in variables if "std" in v.get_metadata()]
    sizes = [math.prod(v.shape) for v in random]
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    parts = iter(jnp.split(jax.random.normal(key, (sum(sizes),)), ends[:-1]))
    drawn = [
        v.replace(v.std * next(parts).reshape(v.shape)) if "std" in v.get_metadata() else v
        for v in variables
    ]
    return jax.tree.unflatten(structure, drawn)
