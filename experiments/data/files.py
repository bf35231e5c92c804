"""Official data files: found or refused with one line that names the file."""

import gzip
import hashlib
import zlib
from pathlib import Path

import numpy as np

from experiments.errors import ExperimentError

_IDX_UINT8 = 0x08


class DataError(ExperimentError):
    """A data file is missing, corrupt or not what it should be; the message names it."""


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_file(path: Path, checksum: str | None) -> None:
    """Raise DataError unless the file is there and has the checksum (None: any content)."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if checksum is not None and (found := sha256(path)) != checksum:
        raise DataError(f"{path}: checksum mismatch, expected sha256 {checksum}, got {found}")


def read_idx(path: Path) -> np.ndarray:
    """The array in a gzipped IDX file of unsigned bytes (the format of the MNIST files).

    The header is two zero bytes, the type code, the number of axes, then each axis as
    a big-endian 32-bit integer; the bytes follow in row-major order.

    Args:
      path: the .gz file.

    Returns:
      Array of uint8 with the shape the header states.

    Raises:
      DataError: when the file is missing, no gzip or no IDX file, cut short or too long.
    """
    try:
        with gzip.open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: not a readable gzip file ({error})") from None
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] != _IDX_UINT8:
        raise DataError(f"{path}: not an IDX file of unsigned bytes")
    offset = 4 + 4 * data[3]
    if len(data) < offset:
        raise DataError(f"{path}: cut short inside the IDX header")
    shape = tuple(int(n) for n in np.frombuffer(data[4:offset], ">u4"))
    size = int(np.prod(shape, dtype=np.int64))
    if len(data) - offset != size:
        raise DataError(
            f"{path}: the IDX header promises shape {shape}, {size} bytes, "
            f"but {len(data) - offset} follow"
        )
    return np.frombuffer(data, np.uint8, offset=offset).reshape(shape)
