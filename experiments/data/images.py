"""Image files: read or refused with one line that names the file."""

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from experiments.data.files import DataError
from experiments.errors import first_line

_MOST_PIXELS = 50_000_000


def read_image(path: Path | zipfile.Path, mode: str | None = None) -> Image.Image:
    """A decoded image.

    Args:
      path: of the file, on disk or inside a zip.
      mode: PIL mode to convert to, such as "RGB"; None for the file's own.

    Returns:
      PIL image.

    Raises:
      DataError: when the file is missing, no image, or cut short.
    """
    try:
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            if image.width * image.height > _MOST_PIXELS:
                raise ValueError(f"{image.width}×{image.height} pixels, too many")
            image.load()
            return image.copy() if mode is None else image.convert(mode)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except UnidentifiedImageError:
        raise DataError(f"{path}: not a readable image (of no known format)") from None
    # Of broken chunks, damaged, encrypted or oddly compressed members of a zip, and bombs, PIL and
    # zipfile raise almost any type.
    except Exception as error:
        raise DataError(f"{path}: not a readable image ({first_line(error)})") from error


def read_integers(path: Path) -> np.ndarray:
    """The (height, width) integers of an image with one channel of 8 or 16 bits."""
    array = np.asarray(read_image(path))
    if array.ndim != 2 or not np.issubdtype(array.dtype, np.integer):
        raise DataError(
            f"{path}: expected one channel of integers, got {array.dtype} {array.shape}"
        )
    return array.astype(np.int32)


def resize(image: Image.Image, height: int, width: int) -> np.ndarray:
    """Bilinear with averaging where it shrinks: (height, width, 3) uint8."""
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def resize_labels(labels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Nearest neighbour: output i reads row ⌊(i + ½) · rows / height⌋; no label is invented."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int)
        for new, old in zip((height, width), labels.shape, strict=True)
    )
    return labels[rows[:, None], columns]
