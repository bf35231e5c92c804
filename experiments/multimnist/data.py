"""MultiMNIST: two overlapping digits an image, the task being to name both.

The left digit lies in the top left corner of a 36×36 canvas, the right one in the
bottom right corner, overlapped by the pixel-wise maximum; nearest-neighbour sampling
brings the canvas back to 28×28.

References:
  Sener and Koltun, Multi-Task Learning as Multi-Objective Optimization, NeurIPS 2018.
"""

from typing import NamedTuple

import numpy as np

TASKS = ("left", "right")
DIGIT_SIZE = 28
CANVAS_SIZE = 36
MEAN, STD = 0.1307, 0.3081  # of MNIST's training pixels on [0, 1], as everybody normalises
SEED = 0  # of the pairs and of the validation part: one data set for everybody
NUM_VALIDATION = 5_000


class Split(NamedTuple):
    """One split of an in-memory data set.

    Attributes:
      images: (N, height, width) uint8.
      labels: (N, T) int32, one column a task.
    """

    images: np.ndarray
    labels: np.ndarray


class Dataset(NamedTuple):
    """The three splits, and what turns pixels into inputs: (pixel / 255 − mean) / std."""

    train: Split
    validation: Split
    test: Split
    mean: float
    std: float


def overlay(left: np.ndarray, right: np.ndarray, canvas_size: int) -> np.ndarray:
    """Both digits on one canvas, in opposite corners, overlapped by the maximum.

    Args:
      left: (N, size, size) uint8, put in the top left corner.
      right: (N, size, size) uint8, put in the bottom right corner.
      canvas_size: rows and columns of the canvas.

    Returns:
      (N, canvas_size, canvas_size) uint8.
    """
    canvas = np.zeros((len(left), canvas_size, canvas_size), np.uint8)
    size = left.shape[1]
    canvas[:, :size, :size] = left
    corner = canvas[:, -right.shape[1] :, -right.shape[1] :]
    np.maximum(corner, right, out=corner)
    return canvas


def resize_nearest(images: np.ndarray, size: int) -> np.ndarray:
    """Nearest-neighbour resize of (N, side, side): output i reads ⌊(i + ½)·side/size⌋."""
    source = ((np.arange(size) + 0.5) * images.shape[1] / size).astype(int)
    return images[:, source[:, None], source]


def partners(rng: np.random.Generator, num_left: int, num_right: int | None = None) -> np.ndarray:
    """For each left digit the index of its right one, drawn uniformly.

    Args:
      rng: numpy generator.
      num_left: number of left digits.
      num_right: number of digits to draw the right one from; None when both come from
        the same set, and then no digit is paired with itself.

    Returns:
      (num_left,) int.
    """
    if num_right is not None:
        return rng.integers(num_right, size=num_left)
    shift = rng.integers(1, num_left, size=num_left)
    return (np.arange(num_left) + shift) % num_left


def compose(
    rng: np.random.Generator,
    left: tuple[np.ndarray, np.ndarray],
    right: tuple[np.ndarray, np.ndarray] | None = None,
) -> Split:
    """Every left image paired with a random right one.

    Args:
      rng: numpy generator that draws the pairs.
      left: images (N, 28, 28) uint8 and their labels (N,).
      right: the same of the set the right images come from; None for the left set
        itself, and then no image is paired with itself.

    Returns:
      Split of N images (N, 28, 28) and labels (N, 2), in the order of the left set.
    """
    images, labels = left
    other_images, other_labels = right if right is not None else left
    partner = partners(rng, len(images), None if right is None else len(other_images))
    canvas = overlay(images, other_images[partner], CANVAS_SIZE)
    pair = np.stack([labels, other_labels[partner]], axis=1).astype(np.int32)
    return Split(resize_nearest(canvas, DIGIT_SIZE), pair)


def compose_splits(
    left: dict[str, tuple[np.ndarray, np.ndarray]],
    right: dict[str, tuple[np.ndarray, np.ndarray]] | None,
    num_validation: int,
) -> dict[str, Split]:
    """Train, validation and test of MultiMNIST from the official train and test parts.

    The validation part is cut off the training images before they are paired, so that
    no image of it is ever seen in training, on either side.

    Args:
      left: {"train": (images, labels), "test": (images, labels)}.
      right: the same for the right images, None for the left set itself.
      num_validation: number of training images held out.

    Returns:
      {"train": Split, "validation": Split, "test": Split}.
    """

    def parts(source: dict[str, tuple[np.ndarray, np.ndarray]], rng: np.random.Generator):
        images, labels = source["train"]
        order = rng.permutation(len(images))
        held_out, kept = np.sort(order[:num_validation]), np.sort(order[num_validation:])
        return {
            "train": (images[kept], labels[kept]),
            "validation": (images[held_out], labels[held_out]),
            "test": source["test"],
        }

    rng = np.random.default_rng(SEED)
    left_parts = parts(left, rng)
    right_parts = None if right is None else parts(right, rng)
    return {
        name: compose(rng, part, None if right_parts is None else right_parts[name])
        for name, part in left_parts.items()
    }
