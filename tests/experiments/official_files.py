"""Tiny data sets in the official layouts, written by the tests."""

import gzip
from pathlib import Path

import numpy as np

from experiments.data.files import sha256
from experiments.multimnist.builder import Source


def write_idx(path: Path, array: np.ndarray) -> None:
    """A gzipped IDX file of unsigned bytes."""
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wb") as file:
        file.write(header + array.astype(np.uint8).tobytes())


def write_mnist(folder: Path, name: str, num_train: int, num_test: int, seed: int) -> Source:
    """Random images and labels as the four official files, and the source that names them."""
    rng = np.random.default_rng(seed)
    for prefix, count in (("train", num_train), ("t10k", num_test)):
        images = rng.integers(256, size=(count, 28, 28))
        write_idx(folder / f"{prefix}-images-idx3-ubyte.gz", images)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", rng.integers(10, size=count))
    checksums = {path.name: sha256(path) for path in sorted(folder.glob("*.gz"))}
    return Source(name, "http://localhost:9/", checksums)
