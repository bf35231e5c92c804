"""Flip and rotation of scenes on the device, right for each kind of label.

Images are interpolated, labels never: a rotated pixel takes the label of the nearest source
pixel, and is ignored where that lies outside the image. Offsets are vectors and turn with
the image; disparity is a number that a flip or a small rotation leaves as it is.
"""

import jax
import jax.numpy as jnp

from experiments.cityscapes.data import IGNORE, Scenes

MAX_DEGREES = 10.0


def augment(scenes: Scenes, key: jax.Array) -> Scenes:
    """Each scene flipped with probability ½ and rotated by up to 10° either way.

    Args:
      scenes: leaves (N, ...).
      key: of flips and angles.

    Returns:
      Scenes of the same shapes and dtypes.
    """
    flip_key, angle_key = jax.random.split(key)
    num, limit = len(scenes.classes), jnp.deg2rad(MAX_DEGREES)
    flips = jax.random.bernoulli(flip_key, 0.5, (num,))
    angles = jax.random.uniform(angle_key, (num,), minval=-limit, maxval=limit)
    flipped = jax.vmap(flip)(scenes)
    chosen = jax.tree.map(
        lambda a, b: jnp.where(flips.reshape(-1, *[1] * (a.ndim - 1)), a, b), flipped, scenes
    )
    return jax.vmap(rotate)(chosen, angles)


def flip(scene: Scenes) -> Scenes:
    """One scene mirrored left to right: the offsets' x changes sign."""
    mirrored = jax.tree.map(lambda a: a[:, ::-1], scene)
    return mirrored._replace(offsets=mirrored.offsets * jnp.array([-1, 1], jnp.float32))


def rotate(scene: Scenes, angle: jax.Array) -> Scenes:
    """One scene turned about its middle; angle > 0 turns x towards y, clockwise as displayed.

    With R the rotation, pixel q shows what was at s = R⁻¹ q (from the middle), the label of
    the nearest pixel p. Its instance's centre p + o is now at R (p + o), so that the offset
    becomes R (p + o) − q = R (o + p − s): exact, the rounding of s included.

    Args:
      scene: leaves without the axis of scenes.
      angle: () in radians.

    Returns:
      Scenes of the same shapes and dtypes.
    """
    height, width = scene.classes.shape
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
    y, x = jnp.meshgrid(jnp.arange(height) - middle_y, jnp.arange(width) - middle_x, indexing="ij")
    source_x, source_y = cos * x + sin * y + middle_x, -sin * x + cos * y + middle_y

    column, row = (jnp.round(s).astype(jnp.int32) for s in (source_x, source_y))
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    column, row = jnp.clip(column, 0, width - 1), jnp.clip(row, 0, height - 1)

    def nearest(labels: jax.Array) -> jax.Array:
        return labels[row, column]

    has_instance = nearest(scene.has_instance) & inside
    has_disparity = nearest(scene.has_disparity) & inside
    nudge = jnp.stack([column - source_x, row - source_y], axis=-1)
    away = nearest(scene.offsets) + nudge
    turned = jnp.stack(
        [cos * away[..., 0] - sin * away[..., 1], sin * away[..., 0] + cos * away[..., 1]], axis=-1
    )
    return Scenes(
        images=_bilinear(scene.images, source_x, source_y),
        classes=jnp.where(inside, nearest(scene.classes), IGNORE).astype(scene.classes.dtype),
        offsets=jnp.where(has_instance[..., None], turned, 0),
        has_instance=has_instance,
        disparity=jnp.where(has_disparity, nearest(scene.disparity), 0),
        has_disparity=has_disparity,
    )


def _bilinear(image: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    """(h, w, C) uint8 at positions x, y; black outside."""
    height, width = image.shape[:2]
    left, top = jnp.floor(x).astype(jnp.int32), jnp.floor(y).astype(jnp.int32)
    total = jnp.zeros((*x.shape, image.shape[2]), jnp.float32)
    for i in (0, 1):
        for j in (0, 1):
            row, column = top + i, left + j
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            weight = (1 - jnp.abs(y - row)) * (1 - jnp.abs(x - column)) * inside
            pixel = image[jnp.clip(row, 0, height - 1), jnp.clip(column, 0, width - 1)]
            total += weight[..., None] * pixel
    return jnp.round(total).astype(image.dtype)
