"""Two overlapping digits from the 1 797 that ship inside scikit-learn: no download.

The 8×8 digits are enlarged to 12×12 and overlapped on a 16×16 canvas as MultiMNIST's
are on 36×36. The digits themselves are divided into train, validation and test before
they are paired, so no digit of one part shows up in another.

References:
  E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI 1998.
"""

import numpy as np

from experiments.multimnist.data import Dataset, Split, overlay, partners

DIGIT_SIZE = 12
CANVAS_SIZE = 16
NUM_TEST, NUM_VALIDATION = 360, 240
PAIRS_PER_DIGIT = 5  # each digit is the left one of so many pairs
SEED = 0


def enlarge(images: np.ndarray, size: int) -> np.ndarray:
    """Bilinear resize of (N, side, side) to (N, size, size), aligned at pixel centres."""
    side = images.shape[1]
    position = np.clip((np.arange(size) + 0.5) * side / size - 0.5, 0, side - 1)
    low = np.minimum(position.astype(int), side - 2)
    matrix = np.zeros((size, side))
    matrix[np.arange(size), low] = 1 - (position - low)
    matrix[np.arange(size), low + 1] = position - low
    return np.einsum("ij,njk,lk->nil", matrix, images, matrix)


def load_digits() -> Dataset:
    """Pairs of digits: 5 985 train, 1 200 validation, 1 800 test, of 16×16 pixels.

    Returns:
      Dataset with images uint8 in 0…255 and labels (left, right); mean and std are those
      of the training images.
    """
    from sklearn.datasets import load_digits as load_sklearn_digits

    images, labels = load_sklearn_digits(return_X_y=True)
    images = enlarge(images.reshape(-1, 8, 8) * (255 / 16), DIGIT_SIZE).round().astype(np.uint8)
    rng = np.random.default_rng(SEED)
    order = rng.permutation(len(images))
    parts = np.split(order, [NUM_TEST, NUM_TEST + NUM_VALIDATION])
    test, validation, train = (_pairs(rng, images[part], labels[part]) for part in parts)
    pixels = train.images / 255
    return Dataset(train, validation, test, float(pixels.mean()), float(pixels.std()))


def _pairs(rng: np.random.Generator, images: np.ndarray, labels: np.ndarray) -> Split:
    left = np.tile(np.arange(len(images)), PAIRS_PER_DIGIT)
    right = np.concatenate([partners(rng, len(images)) for _ in range(PAIRS_PER_DIGIT)])
    canvas = overlay(images[left], images[right], CANVAS_SIZE)
    return Split(canvas, np.stack([labels[left], labels[right]], axis=1).astype(np.int32))
