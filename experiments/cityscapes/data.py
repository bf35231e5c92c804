"""Cityscapes: street scenes labelled by class, instance and disparity.

From the official files to the three tasks' targets: one of 19 classes or ignored; for the
pixels of an instance the offset to its centre; disparity where it was measured.

References:
  Cordts et al., The Cityscapes Dataset for Semantic Urban Scene Understanding, CVPR 2016.
  Kendall, Gal and Cipolla, Multi-Task Learning Using Uncertainty, CVPR 2018.
"""

from typing import Any, NamedTuple

import numpy as np

Array = Any  # numpy's as loaded, JAX's inside a training step
TASKS = ("disparity", "instance", "semantic")
SIZE = (256, 512)  # height and width that the paper trains at
FULL_WIDTH = 2048  # of the official images, whose pixels disparity is measured in
IGNORE = 255
# The official label ids that are trained and evaluated, in the order of their train ids.
TRAINED_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
CLASSES = tuple(
    "road sidewalk building wall fence pole traffic_light traffic_sign vegetation terrain sky "
    "person rider car truck bus train motorcycle bicycle".split()
)
FIRST_INSTANCE = 1000  # an instance's id is 1000 · label + number; below, it is a label alone
VALIDATION_CITIES = ("weimar", "zurich")  # held out of the official training part


class Annotated(NamedTuple):
    """One split as annotated, before the targets are computed.

    Attributes:
      images: (N, height, width, 3) uint8.
      classes: (N, height, width) uint8, 0…18 or IGNORE.
      instances: (N, height, width) int32; pixels of one instance share a number, 0 none.
      disparity: (N, height, width) float32 in pixels of these images; 0 where not measured.
      has_disparity: (N, height, width) bool.
    """

    images: np.ndarray
    classes: np.ndarray
    instances: np.ndarray
    disparity: np.ndarray
    has_disparity: np.ndarray


class Scenes(NamedTuple):
    """One split in memory, with every task's targets and where they hold.

    Attributes:
      images: (N, height, width, 3) uint8.
      classes: (N, height, width) uint8, 0…18 or IGNORE.
      offsets: (N, height, width, 2) float32, from a pixel to the centre of its instance in
        pixels: x to the right, y down; 0 where there is none.
      has_instance: (N, height, width) bool.
      disparity: (N, height, width) float32 in pixels; 0 where not measured.
      has_disparity: (N, height, width) bool.
    """

    images: Array
    classes: Array
    offsets: Array
    has_instance: Array
    disparity: Array
    has_disparity: Array


class SceneData(NamedTuple):
    """The three splits."""

    train: Scenes
    validation: Scenes
    test: Scenes


def semantic_classes(label_ids: np.ndarray) -> np.ndarray:
    """Official label ids → 0…18, or IGNORE for those that are not evaluated."""
    table = np.full(256, IGNORE, np.uint8)
    table[list(TRAINED_IDS)] = np.arange(len(TRAINED_IDS))
    return table[label_ids]


def instance_numbers(instance_ids: np.ndarray) -> np.ndarray:
    """Official instance ids → the same for instances, 0 for pixels of a label alone."""
    return np.where(instance_ids >= FIRST_INSTANCE, instance_ids, 0).astype(np.int32)


def decode_disparity(raw: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Official 16-bit disparity → pixels of an image of a width, and where it was measured.

    The files hold 256 d + 1 for a disparity of d pixels of the full image, 0 for none: a
    disparity of zero (infinitely far) is a measured one.

    Args:
      raw: (height, width) integers.
      width: of the image that the disparity is for.

    Returns:
      disparity (height, width) float32, 0 where not measured, and has_disparity bool.
    """
    disparity = (raw - 1) / 256 * (width / FULL_WIDTH)
    return np.where(raw > 0, disparity, 0).astype(np.float32), raw > 0


def instance_offsets(instances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """From every pixel of an instance to the mean position of the instance's pixels.

    Args:
      instances: (height, width) integers, 0 for none.

    Returns:
      offsets (height, width, 2) float32 as x, y, and has_instance (height, width) bool.
    """
    has_instance = instances > 0
    _, number = np.unique(instances, return_inverse=True)
    number = number.reshape(-1)
    count = np.bincount(number)
    offsets = np.zeros((*instances.shape, 2), np.float32)
    rows, columns = np.indices(instances.shape)
    for axis, position in enumerate((columns, rows)):
        centre = np.bincount(number, position.reshape(-1)) / count
        offset = centre[number].reshape(instances.shape) - position
        offsets[..., axis] = np.where(has_instance, offset, 0)
    return offsets, has_instance


def with_targets(annotated: Annotated) -> Scenes:
    """All tasks' targets and masks of a split."""
    offsets = np.zeros((*annotated.instances.shape, 2), np.float32)
    has_instance = np.zeros(annotated.instances.shape, bool)
    for i, instances in enumerate(annotated.instances):
        offsets[i], has_instance[i] = instance_offsets(instances)
    return Scenes(
        annotated.images,
        annotated.classes,
        offsets,
        has_instance,
        annotated.disparity,
        annotated.has_disparity,
    )
