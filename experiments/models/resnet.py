"""CIFAR-style ResNet-18 as the encoder of CelebA: every attribute's head reads its features.

References:
  He, Zhang, Ren and Sun, Deep Residual Learning for Image Recognition, CVPR 2016.
  Sener and Koltun, Multi-Task Learning as Multi-Objective Optimization, NeurIPS 2018.
"""

import dataclasses
from typing import Any

import jax
from flax import nnx

from experiments.models.conv2d import BatchNorm, Conv
from experiments.models.stateful import StatefulModule, split_stateful


@dataclasses.dataclass(frozen=True)
class ResNetSize:
    """Layer sizes. The default is the paper's: 11 168 832 parameters.

    Attributes:
      widths: features of each stage; all but the first halve the image's sides.
      blocks: residual blocks of each stage.
      pool: side of the average pooling at the end.
    """

    widths: tuple[int, ...] = (64, 128, 256, 512)
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    pool: int = 4

    def features(self, side: int) -> int:
        """Size of the representation of square images."""
        last = -(-side // 2 ** (len(self.widths) - 1))
        return self.widths[-1] * (last // self.pool) ** 2


SMALL = ResNetSize(widths=(8, 16, 32), blocks=(1, 1, 1), pool=4)


class BasicBlock(nnx.Module):
    """Two 3×3 convolutions and the identity, or a 1×1 convolution where shapes change."""

    def __init__(self, channels: int, features: int, stride: int):
        self.conv1 = Conv(channels, features, 3, stride=stride)
        self.bn1 = BatchNorm(features)
        self.conv2 = Conv(features, features, 3)
        self.bn2 = BatchNorm(features)
        shortcut: list[Any] = []
        if stride != 1 or channels != features:
            shortcut = [Conv(channels, features, 1, stride=stride)]
            shortcut.append(BatchNorm(features))
        self.downsample = nnx.List(shortcut)

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """(N, height, width, channels) → (N, height / stride, width / stride, features)."""
        out = jax.nn.relu(self.bn1(self.conv1(x), train))
        out = self.bn2(self.conv2(out), train)
        if len(self.downsample):
            conv, norm = self.downsample
            x = norm(conv(x), train)
        return jax.nn.relu(out + x)


class ResNet(nnx.Module):
    """3×3 stem of stride 1, no max pooling, stages of basic blocks, average pooling."""

    def __init__(self, size: ResNetSize):
        self.conv1 = Conv(3, size.widths[0], 3)
        self.bn1 = BatchNorm(size.widths[0])
        channels, blocks = size.widths[0], []
        for stage, (features, count) in enumerate(zip(size.widths, size.blocks, strict=True)):
            for i in range(count):
                stride = 2 if i == 0 and stage > 0 else 1
                blocks.append(BasicBlock(channels, features, stride))
                channels = features
        self.blocks = nnx.List(blocks)
        self.pool = size.pool

    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """(N, side, side, 3) → (N, features)."""
        x = jax.nn.relu(self.bn1(self.conv1(images), train))
        for block in self.blocks:
            x = block(x, train)
        num, height, width, features = x.shape
        pool, rows, columns = self.pool, height // self.pool, width // self.pool
        x = x[:, : rows * pool, : columns * pool]
        x = x.reshape(num, rows, pool, columns, pool, features).mean((2, 4))
        return x.reshape(num, -1)


def resnet(size: ResNetSize) -> StatefulModule:
    """The encoder as pure functions.

    Args:
      size: layer sizes.

    Returns:
      StatefulModule with `apply(variables, images (N, side, side, 3), train=...) ->
      (features (N, size.features(side)), stats)`.

    Examples:
      >>> from math import prod
      >>> shapes = jax.tree.leaves(resnet(ResNetSize()).eval_shape().params)
      >>> sum(prod(leaf.shape) for leaf in shapes)
      11168832
    """
    return split_stateful(lambda: ResNet(size))
