"""Dilated ResNet-50: features at an eighth of the image's resolution instead of a thirty-second.

The last two stages keep stride 1 and dilate their kernels by 2 and 4. Modules bear the names
of torchvision's, so that its ImageNet weights load (`experiments.models.pretrained`).

References:
  Yu, Koltun and Funkhouser, Dilated Residual Networks, CVPR 2017.
  He, Zhang, Ren and Sun, Deep Residual Learning for Image Recognition, CVPR 2016.
"""

import dataclasses

import jax
from flax import nnx

from experiments.models.conv2d import BatchNorm, Conv, max_pool
from experiments.models.stateful import StatefulModule, split_stateful


@dataclasses.dataclass(frozen=True)
class DilatedSize:
    """Layer sizes. The default is ResNet-50: 23 508 032 parameters.

    Attributes:
      width: features of the stem; stage i has width · 2^i inside its blocks.
      blocks: bottleneck blocks of the four stages.
      expansion: a block's output has so many times the features of its inside.
    """

    width: int = 64
    blocks: tuple[int, int, int, int] = (3, 4, 6, 3)
    expansion: int = 4

    @property
    def features(self) -> int:
        """Features of the representation."""
        return 8 * self.width * self.expansion


SMALL = DilatedSize(width=8, blocks=(1, 1, 1, 1), expansion=2)
STRIDE = 8  # of the representation
DILATIONS = (1, 1, 2, 4)  # of the four stages


class Bottleneck(nnx.Module):
    """1×1, 3×3 and 1×1 convolutions and the identity, or a 1×1 where shapes change."""

    def __init__(
        self,
        channels: int,
        inside: int,
        features: int,
        stride: int,
        dilation: int,
        *,
        rngs: nnx.Rngs,
    ):
        self.conv1 = Conv(channels, inside, 1, rngs=rngs)
        self.bn1 = BatchNorm(inside, rngs=rngs)
        self.conv2 = Conv(inside, inside, 3, stride=stride, dilation=dilation, rngs=rngs)
        self.bn2 = BatchNorm(inside, rngs=rngs)
        self.conv3 = Conv(inside, features, 1, rngs=rngs)
        self.bn3 = BatchNorm(features, rngs=rngs)
        shortcut = []
        if stride != 1 or channels != features:
            shortcut = [Conv(channels, features, 1, stride=stride, rngs=rngs)]
            shortcut.append(BatchNorm(features, rngs=rngs))
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

    def __init__(self, size: DilatedSize, *, rngs: nnx.Rngs):
        self.conv1 = Conv(3, size.width, 7, stride=2, rngs=rngs)
        self.bn1 = BatchNorm(size.width, rngs=rngs)
        channels, before, stages = size.width, 1, []
        for i, (count, dilation) in enumerate(zip(size.blocks, DILATIONS, strict=True)):
            inside, blocks = size.width * 2**i, []
            for j in range(count):
                stride = 2 if i == 1 and j == 0 else 1
                # A stage's first block still has the dilation of the stage before.
                spread = dilation if j else before
                features = inside * size.expansion
                blocks.append(Bottleneck(channels, inside, features, stride, spread, rngs=rngs))
                channels = features
            before = dilation
            stages.append(nnx.List(blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages

    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """(N, height, width, 3) → (N, height / 8, width / 8, features)."""
        x = max_pool(jax.nn.relu(self.bn1(self.conv1(images), train)))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
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
    return split_stateful(lambda rngs: DilatedResNet(size, rngs=rngs))
