"""Convolution and max pooling in the form the backend runs fastest."""

import jax
import jax.numpy as jnp
from jax import lax


def conv_pool(images: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """Convolution without padding, plus bias, then 2×2 max pooling.

    XLA's CPU convolution is several times slower inside `lax.scan` than outside, so on
    a CPU the same numbers come from one matrix product (`conv_pool_matmul`).

    Args:
      images: (N, height, width, channels).
      kernel: (rows, columns, channels, features).
      bias: (features,).

    Returns:
      (N, (height − rows + 1) / 2, (width − columns + 1) / 2, features).
    """
    form = conv_pool_matmul if jax.default_backend() == "cpu" else conv_pool_lax
    return form(images, kernel, bias)


def conv_pool_lax(images: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """`conv_pool` by XLA's convolution."""
    layout = ("NHWC", "HWIO", "NHWC")
    out = lax.conv_general_dilated(images, kernel, (1, 1), "VALID", dimension_numbers=layout)
    first, second = (jnp.maximum(out[:, i::2, ::2], out[:, i::2, 1::2]) for i in (0, 1))
    return jnp.maximum(first, second) + bias


def conv_pool_matmul(images: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """`conv_pool` by one matrix product on patches of pooling windows.

    The four outputs of a pooling window read one patch of (rows + 1) × (columns + 1)
    pixels, so each patch is gathered once and multiplied by the four shifts of the
    kernel side by side: a quarter of the patches of plain im2col, and a product four
    times as wide. 2×2 blocks of pixels are made channels first, which leaves
    ((rows + 1) / 2)² slices to gather. Image sides are even, kernel sides odd.
    """
    num, height, width, channels = images.shape
    rows, columns, _, features = kernel.shape
    if height % 2 or width % 2 or rows % 2 == 0 or columns % 2 == 0:
        raise ValueError(
            "conv_pool_matmul: expected even image sides and odd kernel sides, got images "
            f"{images.shape} and kernel {kernel.shape}"
        )
    blocks = images.reshape(num, height // 2, 2, width // 2, 2, channels)
    blocks = blocks.transpose(0, 1, 3, 2, 4, 5).reshape(num, height // 2, width // 2, -1)
    shifts = [(i, j) for i in range((rows + 1) // 2) for j in range((columns + 1) // 2)]
    out_height, out_width = (height - rows + 1) // 2, (width - columns + 1) // 2
    patches = jnp.concatenate(
        [blocks[:, i : i + out_height, j : j + out_width] for i, j in shifts], axis=-1
    )
    shifted = [
        jnp.pad(kernel, ((i, 1 - i), (j, 1 - j), (0, 0), (0, 0))) for i in (0, 1) for j in (0, 1)
    ]
    wide = jnp.stack(shifted, axis=3)  # (rows + 1, columns + 1, channels, 4, features)
    wide = wide.reshape((rows + 1) // 2, 2, (columns + 1) // 2, 2, channels, 4, features)
    wide = wide.transpose(0, 2, 1, 3, 4, 5, 6).reshape(-1, 4 * features)
    out = (patches.reshape(-1, wide.shape[0]) @ wide).reshape(num, out_height, out_width, 4, -1)
    return _window_max(out) + bias


@jax.custom_vjp
def _window_max(values: jax.Array) -> jax.Array:
    """(..., 4, features) → (..., features); the first of equal values takes the gradient.

    JAX's own derivative of max shares it among equal values, at twice the time of a step.
    """
    return jnp.max(values, axis=-2)


def _window_max_forward(values: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    largest = _window_max(values)
    return largest, (values, largest)


def _window_max_backward(
    saved: tuple[jax.Array, jax.Array], cotangent: jax.Array
) -> tuple[jax.Array]:
    values, largest = saved
    wins, taken = [], jnp.zeros(largest.shape, bool)
    for i in range(values.shape[-2]):
        equal = values[..., i, :] == largest
        wins.append(equal & ~taken)
        taken |= equal
    return (jnp.where(jnp.stack(wins, axis=-2), cotangent[..., None, :], 0),)


_window_max.defvjp(_window_max_forward, _window_max_backward)
