"""One backbone over several cameras, concatenated in feature space (the "HydraNet" pattern).

Shared: the backbone, the same for all cameras, and the layer that fuses their features. Own:
a head per task on the fused features. The representation is the fused features, (N, features):
exact MGDA and MGDA-UB apply. A head that looks at one camera alone would read a representation
of two parts, {"cameras": ..., "fused": ...}; the oracle takes any pytree.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
from flax import nnx

from experiments.models.conv2d import conv2d
from experiments.models.dense import Dense, SharedModel
from experiments.models.lenet import split

PyTree = Any


class Backbone(nnx.Module):
    """3×3 convolutions of stride 2, then the mean over the image."""

    def __init__(self, channels: Sequence[int], *, rngs: nnx.Rngs):
        make = jax.nn.initializers.he_normal()
        pairs = zip(channels[:-1], channels[1:], strict=True)
        self.kernels = nnx.List([nnx.Param(make(rngs.params(), (3, 3, a, b))) for a, b in pairs])

    def __call__(self, images: jax.Array) -> jax.Array:
        """(N, height, width, channels[0]) → (N, channels[-1])."""
        for kernel in self.kernels:
            images = jax.nn.relu(conv2d(images, kernel[...], stride=2))
        return images.mean((1, 2))


class MultiCamera(nnx.Module):
    """Every camera through the backbone, side by side through a dense layer."""

    def __init__(self, cameras: int, channels: Sequence[int], features: int, *, rngs: nnx.Rngs):
        self.backbone = Backbone(channels, rngs=rngs)
        self.fuse = Dense((cameras * channels[-1], features), last_relu=True, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """(N, cameras, height, width, channels) → (N, features)."""
        num, cameras = images.shape[:2]
        views = self.backbone(images.reshape(num * cameras, *images.shape[2:]))
        return self.fuse(views.reshape(num, -1))


def multi_camera(
    cameras: int,
    outputs: Mapping[str, int],
    *,
    channels: Sequence[int] = (3, 16, 32),
    features: int = 64,
    hidden: int = 32,
) -> SharedModel:
    """The model as pure functions.

    Args:
      cameras: images of an example.
      outputs: {task: size of its output}.
      channels: of the images and of each convolution.
      features: of the representation.
      hidden: hidden units of a head.

    Returns:
      SharedModel with x (N, cameras, height, width, channels[0]) and z (N, features).

    Examples:
      >>> model = multi_camera(3, {"lane": 4, "sign": 2})
      >>> shared, own = jax.eval_shape(model.init, jax.random.key(0))
      >>> sorted(own)
      ['lane', 'sign']
    """
    encoder = split(lambda rngs: MultiCamera(cameras, channels, features, rngs=rngs))
    heads = {
        task: split(lambda rngs, size=size: Dense((features, hidden, size), rngs=rngs))
        for task, size in outputs.items()
    }

    def init(key: jax.Array) -> tuple[PyTree, dict[str, PyTree]]:
        encoder_key, *keys = jax.random.split(key, 1 + len(heads))
        own = {t: head.init(k) for (t, head), k in zip(heads.items(), keys, strict=True)}
        return encoder.init(encoder_key), own

    def reading_z(apply: Any) -> Any:
        return lambda own, z, x: apply(own, z)

    readers = {task: reading_z(head.apply) for task, head in heads.items()}
    return SharedModel(init, encoder.apply, readers)
