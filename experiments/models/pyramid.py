"""Pyramid-pooling decoder: dense predictions that see the whole image; one a task.

References:
  Zhao, Shi, Qi, Wang and Jia, Pyramid Scene Parsing Network, CVPR 2017.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.models.conv2d import BatchNorm, Conv
from experiments.models.stateful import StatefulModule, split_stateful

BINS = (1, 2, 3, 6)


def pooling_matrix(size: int, bins: int) -> np.ndarray:
    """(bins, size) averages: bin i is the mean over ⌊i·size/bins⌋ … ⌈(i+1)·size/bins⌉ − 1.

    Examples:
      >>> pooling_matrix(4, 2)
      array([[0.5, 0.5, 0. , 0. ],
             [0. , 0. , 0.5, 0.5]])
    """
    matrix = np.zeros((bins, size))
    for i in range(bins):
        first, last = i * size // bins, -(-(i + 1) * size // bins)
        matrix[i, first:last] = 1 / (last - first)
    return matrix


def interpolation_matrix(bins: int, size: int) -> np.ndarray:
    """(size, bins) linear interpolation between the centres of bins, constant outside them.

    Examples:
      >>> interpolation_matrix(2, 4)
      array([[1.  , 0.  ],
             [0.75, 0.25],
             [0.25, 0.75],
             [0.  , 1.  ]])
    """
    position = np.clip((np.arange(size) + 0.5) * bins / size - 0.5, 0, bins - 1)
    low = np.minimum(position.astype(int), max(bins - 2, 0))
    matrix = np.zeros((size, bins))
    matrix[np.arange(size), np.minimum(low + 1, bins - 1)] = position - low
    matrix[np.arange(size), low] += 1 - (position - low)
    return matrix


def resize_by(rows: np.ndarray, columns: np.ndarray, x: jax.Array) -> jax.Array:
    """Rows (h', h) and columns (w', w) of weights applied to x (N, h, w, C): (N, h', w', C)."""
    row_weights, column_weights = (jnp.asarray(m, x.dtype) for m in (rows, columns))
    return jnp.einsum("ih,nhwc,jw->nijc", row_weights, x, column_weights)


def upsample(x: jax.Array, height: int, width: int) -> jax.Array:
    """Bilinear: (N, h, w, C) → (N, height, width, C)."""
    rows = interpolation_matrix(x.shape[1], height)
    return resize_by(rows, interpolation_matrix(x.shape[2], width), x)


class PyramidDecoder(nnx.Module):
    """Average pooling into grids of four sizes beside the features, then two convolutions."""

    def __init__(self, channels: int, inside: int, outputs: int, dropout: float):
        self.convs = nnx.List([Conv(channels, inside, 1) for _ in BINS])
        self.norms = nnx.List([BatchNorm(inside) for _ in BINS])
        self.merge = Conv(channels + len(BINS) * inside, inside, 3)
        self.merge_norm = BatchNorm(inside)
        self.dropout = nnx.Dropout(dropout, broadcast_dims=(1, 2))
        self.out = Conv(inside, outputs, 1, std=math.sqrt(1 / inside))
        self.bias = nnx.Param(jnp.zeros(outputs))

    def __call__(self, z: jax.Array, key: jax.Array | None, *, train: bool) -> jax.Array:
        """(N, h, w, channels) → (N, h, w, outputs). Whole channels are dropped, with a key."""
        height, width = z.shape[1:3]
        levels = [z]
        for bins, conv, norm in zip(BINS, self.convs, self.norms, strict=True):
            pooled = resize_by(pooling_matrix(height, bins), pooling_matrix(width, bins), z)
            levels.append(upsample(jax.nn.relu(norm(conv(pooled), train)), height, width))
        merged = self.merge(jnp.concatenate(levels, axis=-1))
        merged = jax.nn.relu(self.merge_norm(merged, train))
        dropped = self.dropout(merged, deterministic=key is None, rngs=key)
        return self.out(dropped) + self.bias[...]


def pyramid_decoder(
    channels: int, outputs: int, *, inside: int = 512, dropout: float = 0.1
) -> StatefulModule:
    """A decoder as pure functions.

    Args:
      channels: features of the representation.
      outputs: numbers predicted a pixel.
      inside: features of each pyramid level and of the last layer.
      dropout: rate, of whole channels before the last layer.

    Returns:
      StatefulModule with `apply(variables, z (N, h, w, channels), key, train=...) ->
      (out (N, h, w, outputs), stats)`; key None: no dropout.
    """
    return split_stateful(lambda: PyramidDecoder(channels, inside, outputs, dropout))
