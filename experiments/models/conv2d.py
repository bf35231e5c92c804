"""Convolution in the form the backend runs fastest, and BatchNorm, as NNX modules."""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from experiments.models.stateful import normal_param


def conv2d(images: jax.Array, kernel: jax.Array, stride: int = 1, dilation: int = 1) -> jax.Array:
    """Convolution padded by dilation · (side − 1) / 2 on every edge, as torchvision pads.

    XLA's CPU convolution is several times slower inside `lax.scan` than outside, so on
    a CPU the same numbers come from one matrix product (`conv2d_matmul`).

    Args:
      images: (N, height, width, channels).
      kernel: (side, side, channels, features), side odd.
      stride: of rows and columns.
      dilation: pixels between two taps of the kernel.

    Returns:
      (N, ⌈height / stride⌉, ⌈width / stride⌉, features).
    """
    form = conv2d_matmul if jax.default_backend() == "cpu" else conv2d_lax
    return form(images, kernel, stride, dilation)


def conv2d_lax(images: jax.Array, kernel: jax.Array, stride: int, dilation: int) -> jax.Array:
    """`conv2d` by XLA's convolution."""
    pad = dilation * (kernel.shape[0] - 1) // 2
    return lax.conv_general_dilated(
        images,
        kernel,
        (stride, stride),
        ((pad, pad), (pad, pad)),
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def conv2d_matmul(images: jax.Array, kernel: jax.Array, stride: int, dilation: int) -> jax.Array:
    """`conv2d` as shifted slices side by side, times the kernel as one matrix.

    Rows are shifted first, columns of the result then: 2 · side slices instead of side².
    """
    side, _, channels, features = kernel.shape
    if side % 2 == 0:
        raise ValueError(f"conv2d: expected an odd kernel side, got kernel {kernel.shape}")
    pad = dilation * (side - 1) // 2
    padded = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))

    def taps(x: jax.Array, axis: int) -> jax.Array:
        size = -(-images.shape[axis] // stride)
        first = [i * dilation for i in range(side)]
        last = [i + stride * (size - 1) + 1 for i in first]
        slices = [lax.slice_in_dim(x, i, j, stride, axis) for i, j in zip(first, last, strict=True)]
        return jnp.concatenate(slices, axis=-1)

    patches = taps(taps(padded, 1), 2)  # features in the order column, row, channel
    matrix = kernel.transpose(1, 0, 2, 3).reshape(side * side * channels, features)
    return jnp.matmul(patches, matrix)


def max_pool(images: jax.Array) -> jax.Array:
    """Maximum over 3×3 windows, stride 2, padded by one pixel: (N, h, w, C) → half the sides."""
    lowest = jnp.finfo(images.dtype).min
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=lowest)
    num, height, width, channels = images.shape
    rows, columns = -(-height // 2), -(-width // 2)

    def along(x: jax.Array, axis: int, size: int) -> jax.Array:
        taps = [lax.slice_in_dim(x, i, i + 2 * size - 1, 2, axis) for i in range(3)]
        return jnp.maximum(jnp.maximum(taps[0], taps[1]), taps[2])

    return along(along(padded, 1, rows), 2, columns)


class Conv(nnx.Module):
    """A convolution without bias, initialised as He et al. do (fan out) unless std is given."""

    def __init__(
        self,
        channels: int,
        features: int,
        side: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        std: float | None = None,
    ):
        std = math.sqrt(2 / (side * side * features)) if std is None else std
        self.kernel = normal_param((side, side, channels, features), std)
        self.stride, self.dilation = stride, dilation

    def __call__(self, images: jax.Array) -> jax.Array:
        """(N, height, width, channels) → (N, height / stride, width / stride, features)."""
        return conv2d(images, self.kernel[...], self.stride, self.dilation)


class BatchNorm(nnx.Module):
    """Batch normalisation over all axes but the last, in float32.

    Training normalises with the batch's mean and variance and moves the running ones by a
    tenth towards them (the variance unbiased), which evaluation normalises with.
    """

    def __init__(self, features: int):
        self.scale = nnx.Param(jnp.ones(features))
        self.bias = nnx.Param(jnp.zeros(features))
        self.mean = nnx.BatchStat(jnp.zeros(features))
        self.var = nnx.BatchStat(jnp.ones(features))

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """(..., features) → the same shape."""
        if train:
            axes, count = tuple(range(x.ndim - 1)), x.size // x.shape[-1]
            mean, var = jnp.mean(x, axes), jnp.var(x, axes)
            unbiased = var * (count / max(count - 1, 1))
            for running, new in ((self.mean, mean), (self.var, unbiased)):
                running[...] = lax.stop_gradient(0.9 * running[...] + 0.1 * new)
        else:
            mean, var = self.mean[...], self.var[...]
        return (x - mean) * (lax.rsqrt(var + 1e-5) * self.scale[...]) + self.bias[...]
