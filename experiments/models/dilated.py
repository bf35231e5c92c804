"""Dilated ResNet-50: features at an eighth of the image's resolution instead of a thirty-second.

The last two stages keep stride 1 and dilate their kernels by 2 and 4. Modules bear the names
of torchvision's, so that its ImageNet weights load (`experiments.models.pretrained`).

References:
  Yu, Koltun and Funkhouser, Dilated Residual Networks, CVPR 2017.
  He, Zhang, Ren and Sun, Deep Residual Learning for Image Recognition, CVPR 2016.
"""

import dataclasses
from typing import Any

import jax
from flax import nnx

from experiments.models.conv2d import BatchNorm, Conv, max_pool
from experiments.models.stateful import StatefulModule, split_stateful


@dataclasses.dataclass(frozen=True)
class DilatedSize:
    """Layer sizes. The default is ResNet-50: 23 508 032 parameters.

    Attributes:
      width: features of the stem; stage i has width · 2^i inside its blocks.
      blocks: bottleneck blocks of the stages, four or less.
      expansion: a block's output has so many times the features of its inside.
    """

    width: int = 64
    blocks: tuple[int, ...] = (3, 4, 6, 3)
    expansion: int = 4

    @property
    def features(self) -> int:
        """Features of the representation."""
        return self.width * 2 ** (len(self.blocks) - 1) * self.expansion


SMALL = DilatedSize(width=8, blocks=(1, 1, 1), expansion=4)
STRIDE = 8  # of the representation
DILATIONS = (1, 1, 2, 4)  # of the stages


class Bottleneck(nnx.Module):
    """1×1, 3×3 and 1×1 convolutions and the identity, or a 1×1 where shapes change."""

    def __init__(
        self,
        channels: int,
        inside: int,
        features: int,
        stride: int,
        dilation: int,
    ):
        self.conv1 = Conv(channels, inside, 1)
        self.bn1 = BatchNorm(inside)
        self.conv2 = Conv(inside, inside, 3, stride=stride, dilation=dilation)
        self.bn2 = BatchNorm(inside)
        self.conv3 = Conv(inside, features, 1)
        self.bn3 = BatchNorm(features)
        shortcut: list[Any] = []
        if stride != 1 or channels != features:
            shortcut = [Conv(channels, features, 1, stride=stride)]
            shortcut.append(BatchNorm(features))
        self.downsample = nnx.List(shortcut)

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """(N, height, width, channels) → (N, height / stride, width / stride, features)."""
        out = jax.nn.relu(self.bn1(self.conv1(x), train))
        out = jax.nn.relu(self.bn2(self.conv2(out), train))
        out = self.bn3(self.conv3(out), train)
        if len(self.downsample):
            conv, norm = self.downsample
            x = norm(conv(x), train)
        return jax.nn.relu(out + x)


class DilatedResNet(nnx.Module):
    """7×7 stem of stride 2, max pooling, four stages of bottleneck blocks."""

    def __init__(self, size: DilatedSize):
        self.conv1 = Conv(3, size.width, 7, stride=2)
        self.bn1 = BatchNorm(size.width)
        channels, before = size.width, 1
        for i, (count, dilation) in enumerate(zip(size.blocks, DILATIONS, strict=False)):
            inside, blocks = size.width * 2**i, []
            for j in range(count):
                stride = 2 if i == 1 and j == 0 else 1
                # A stage's first block still has the dilation of the stage before.
                spread = dilation if j else before
                features = inside * size.expansion
                blocks.append(Bottleneck(channels, inside, features, stride, spread))
                channels = features
            before = dilation
            setattr(self, f"layer{i + 1}", nnx.List(blocks))
        self.stages = len(size.blocks)

    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """(N, height, width, 3) → (N, height / 8, width / 8, features)."""
        x = max_pool(jax.nn.relu(self.bn1(self.conv1(images), train)))
        for i in range(self.stages):
            for block in getattr(self, f"layer{i + 1}"):
                x = block(x, train)
        return x


def dilated_resnet(size: DilatedSize) -> StatefulModule:
    """The encoder as pure functions.

    Args:
      size: layer sizes.

    Returns:
      StatefulModule with `apply(variables, images (N, height, width, 3), train=...) ->
      (features (N, height / 8, width / 8, size.features), stats)`.

    Examples:
      >>> from math import prod
      >>> shapes = jax.tree.leaves(dilated_resnet(DilatedSize()).eval_shape().params)
      >>> sum(prod(leaf.shape) for leaf in shapes)
      23508032
    """
    return split_stateful(lambda: DilatedResNet(size))
