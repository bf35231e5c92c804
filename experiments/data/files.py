"""Official data files: found or refused with one line that names the file."""

import contextlib
import gzip
import hashlib
import math
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from experiments.errors import ExperimentError, first_line

_IDX_UINT8 = 0x08


_MOST_BYTES = 1 << 32  # of an IDX file: more than any data set in this format


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
            head = file.read(4)
            if len(head) < 4 or head[:2] != b"\0\0" or head[2] != _IDX_UINT8:
                raise DataError(f"{path}: not an IDX file of unsigned bytes")
            axes = file.read(4 * head[3])
            if len(axes) < 4 * head[3]:
                raise DataError(f"{path}: cut short inside the IDX header")
            shape = tuple(int(n) for n in np.frombuffer(axes, ">u4"))
            size = math.prod(shape)
            if size > _MOST_BYTES:
                raise DataError(f"{path}: the IDX header promises {size} bytes, too many")
            data = file.read(size + 1)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: not a readable gzip file ({error})") from None
    if len(data) != size:
        follow = len(data) if len(data) < size else "more"
        raise DataError(
            f"{path}: the IDX header promises shape {shape}, {size} bytes, but {follow} follow"
        )
    return np.frombuffer(data, np.uint8).reshape(shape)


@contextlib.contextmanager
def prepared(cache_dir: Path, name: str) -> Iterator[None]:
    """Preparing or reading a data set inside; what the libraries raise becomes a DataError.

    Args:
      cache_dir: of all prepared data sets.
      name: of the folder of this one.
    """
    try:
        yield
    except (ExperimentError, OSError, MemoryError):
        raise
    except Exception as error:  # of a damaged file almost any type, from several libraries
        raise DataError(
            f"{cache_dir / name}: not readable as a prepared data set ({first_line(error)}); "
            "without this folder it is prepared anew"
        ) from error


def check_not_empty(folder: Path | None) -> None:
    """Raise DataError for a folder of official files that is there and empty."""
    if folder is not None and not any(folder.iterdir()):
        raise DataError(f"{folder}: an empty folder")


def file_name(path: Path, line: int, name: str) -> str:
    """The name of a file as a list of files gives it; DataError where it leads elsewhere."""
    if name in ("", ".", "..") or set(name) & set("/\\:") or not name.isprintable():
        raise DataError(f"{path}: line {line}: expected the name of a file, got {name!r}")
    return name
