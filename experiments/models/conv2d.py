"""Convolution in the form the backend runs fastest, and BatchNorm, as NNX modules."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax


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
    """`conv2d` as shifted slices side by side, times the kernel as one matrix."""
    side, _, channels, features = kernel.shape
    if side % 2 == 0:
        raise ValueError(f"conv2d: expected an odd kernel side, got kernel {kernel.shape}")
    num, height, width, _ = images.shape
    rows, columns = -(-height // stride), -(-width // stride)
    pad = dilation * (side - 1) // 2
    padded = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))

    def tap(i: int, j: int) -> jax.Array:
        first = (0, i * dilation, j * dilation, 0)
        last = (
            num,
            first[1] + stride * (rows - 1) + 1,
            first[2] + stride * (columns - 1) + 1,
            channels,
        )
        return lax.slice(padded, first, last, (1, stride, stride, 1))

    patches = jnp.concatenate([tap(i, j) for i in range(side) for j in range(side)], axis=-1)
    out = patches.reshape(-1, side * side * channels) @ kernel.reshape(-1, features)
    return out.reshape(num, rows, columns, features)


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
    """A convolution without bias, initialised as He et al. do (fan out)."""

    def __init__(
        self,
        channels: int,
        features: int,
        side: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        rngs: nnx.Rngs,
    ):
        make = jax.nn.initializers.variance_scaling(2.0, "fan_out", "normal")
        self.kernel = nnx.Param(make(rngs.params(), (side, side, channels, features)))
        self.stride, self.dilation = stride, dilation

    def __call__(self, images: jax.Array) -> jax.Array:
        """(N, height, width, channels) → (N, height / stride, width / stride, features)."""
        return conv2d(images, self.kernel[...], self.stride, self.dilation)


class BatchNorm(nnx.Module):
    """Batch normalisation over all axes but the last, in float32.

    Training normalises with the batch's mean and variance and moves the running ones by a
    tenth towards them (the variance unbiased), which evaluation normalises with.
    """

    def __init__(self, features: int, *, rngs: nnx.Rngs):
        del rngs  # nothing of it is random
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
