"""NNX modules with BatchNorm as pure functions of their variables."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
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


def split_stateful(make: Callable[[nnx.Rngs], nnx.Module]) -> StatefulModule:
    """The pure functions of a module whose call takes `train` as a keyword.

    Args:
      make: `make(rngs) -> module`, with variables of type Param and BatchStat.

    Returns:
      StatefulModule.
    """
    graph = nnx.graphdef(nnx.eval_shape(lambda: make(nnx.Rngs(0))))

    def init(key: jax.Array) -> Variables:
        module = make(nnx.Rngs(key))
        return Variables(nnx.state(module, nnx.Param), nnx.state(module, nnx.BatchStat))

    def apply(variables: Variables, *args: Any, train: bool) -> tuple[Any, PyTree]:
        # copy=True: the merged module must not share variables with an outer trace.
        module = nnx.merge(graph, variables.params, variables.stats, copy=True)
        out = module(*args, train=train)
        return out, nnx.state(module, nnx.BatchStat)

    def eval_shape() -> Variables:
        return jax.eval_shape(init, jax.random.key(0))

    return StatefulModule(init, apply, eval_shape)
