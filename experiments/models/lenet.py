"""The paper's LeNet for MultiMNIST: a shared encoder and one small head per digit.

Modules are Flax NNX. They are split once, into a static graph and parameters, and are
trained as pure functions of the parameters.

References:
  Sener and Koltun, Multi-Task Learning as Multi-Objective Optimization, NeurIPS 2018,
  supplement; layer sizes as in the authors' public code.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.models.convolution import conv_pool

PyTree = Any


@dataclasses.dataclass(frozen=True)
class LeNetSize:
    """Layer sizes. The default is the paper's: 21 330 + 3 060 parameters.

    Attributes:
      side: pixels of a side of the square images.
      kernels: sides of the two convolution kernels.
      channels: features of the two convolutions.
      features: size of the representation.
      hidden: hidden units of a head.
      dropout: rate, of whole channels in the encoder and of hidden units in a head.
    """

    side: int = 28
    kernels: tuple[int, int] = (5, 5)
    channels: tuple[int, int] = (10, 20)
    features: int = 50
    hidden: int = 50
    dropout: float = 0.5


SMALL = LeNetSize(side=16, kernels=(5, 3), channels=(12, 24), features=48, hidden=32, dropout=0.2)
NUM_CLASSES = 10


class ConvPool(nnx.Module):
    """Convolution without padding, then 2×2 max pooling."""

    def __init__(self, kernel_side: int, channels: int, features: int, *, rngs: nnx.Rngs):
        shape = (kernel_side, kernel_side, channels, features)
        self.kernel = nnx.Param(jax.nn.initializers.lecun_normal()(rngs.params(), shape))
        self.bias = nnx.Param(jnp.zeros(features))

    def __call__(self, images: jax.Array) -> jax.Array:
        """(N, height, width, channels) → (N, height', width', features)."""
        return conv_pool(images, self.kernel[...], self.bias[...])


class Encoder(nnx.Module):
    """Images → the representation that all heads share."""

    def __init__(self, size: LeNetSize, *, rngs: nnx.Rngs):
        side = size.side
        for kernel in size.kernels:
            side = (side - kernel + 1) // 2
        self.first = ConvPool(size.kernels[0], 1, size.channels[0], rngs=rngs)
        self.second = ConvPool(size.kernels[1], *size.channels, rngs=rngs)
        self.dense = nnx.Linear(side * side * size.channels[1], size.features, rngs=rngs)
        self.dropout = nnx.Dropout(size.dropout, broadcast_dims=(1, 2))

    def __call__(self, images: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """(N, side, side, 1) → (N, features). Dropout is drawn from key; none without one."""
        x = jax.nn.relu(self.first(images))
        # A channel's mask is one factor ≥ 0, so dropping after the pooling is dropping before it.
        x = self.dropout(self.second(x), deterministic=key is None, rngs=key)
        x = jax.nn.relu(x).reshape(len(x), -1)
        return jax.nn.relu(self.dense(x))


class Head(nnx.Module):
    """Representation → the logits of one digit."""

    def __init__(self, size: LeNetSize, *, rngs: nnx.Rngs):
        self.hidden = nnx.Linear(size.features, size.hidden, rngs=rngs)
        self.dropout = nnx.Dropout(size.dropout)
        self.out = nnx.Linear(size.hidden, NUM_CLASSES, rngs=rngs)

    def __call__(self, z: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """(N, features) → (N, 10). Dropout is drawn from key; none without one."""
        x = jax.nn.relu(self.hidden(z))
        return self.out(self.dropout(x, deterministic=key is None, rngs=key))


class PureModule(NamedTuple):
    """A module split into functions: `init(key) -> params`, `apply(params, *args)`."""

    init: Callable[[jax.Array], PyTree]
    apply: Callable[..., Any]


def split(make: Callable[[nnx.Rngs], nnx.Module]) -> PureModule:
    """The pure functions of a module without state other than its parameters."""
    graph = nnx.graphdef(nnx.eval_shape(lambda: make(nnx.Rngs(0))))

    def init(key: jax.Array) -> PyTree:
        return nnx.state(make(nnx.Rngs(key)), nnx.Param)

    def apply(params: PyTree, *args: Any) -> Any:
        # copy=True: the merged module must not share variables with an outer trace.
        return nnx.merge(graph, params, copy=True)(*args)

    return PureModule(init, apply)


def lenet(size: LeNetSize) -> tuple[PureModule, PureModule]:
    """Encoder and head (each task has its own parameters of it) as pure functions.

    Args:
      size: layer sizes.

    Returns:
      encoder with `apply(params, images (N, side, side, 1), key) -> (N, features)`, head
      with `apply(params, z (N, features), key) -> logits (N, 10)`; key None: no dropout.

    Examples:
      >>> encoder, head = lenet(LeNetSize())
      >>> params = jax.jit(encoder.init)(jax.random.key(0))
      >>> jax.jit(encoder.apply)(params, jnp.zeros((2, 28, 28, 1)), None).shape
      (2, 50)
    """
    encoder = split(lambda rngs: Encoder(size, rngs=rngs))
    head = split(lambda rngs: Head(size, rngs=rngs))
    return encoder, head
