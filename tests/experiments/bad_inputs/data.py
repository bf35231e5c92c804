"""Damaged files of data and of weights."""

import functools
import gzip
import json
import random
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image

from experiments.celeba.data import ATTRIBUTES, read_attributes, read_partition
from experiments.data.files import read_idx
from experiments.data.images import read_image, read_integers
from experiments.errors import program
from experiments.models.pretrained import read_tensors
from experiments.multilabel.arff import read_arff
from experiments.multilabel.data import read_labels
from tests.experiments.bad_inputs.outcome import Case, Outcome, attempt
from tests.experiments.official_files import write_idx


def damaged(content: bytes, rng: random.Random) -> Iterator[bytes]:
    """A file's content, cut, flipped, filled and replaced."""
    size = len(content)
    yield from (b"", b"\0", b"\0" * size, b"\xff" * 64, b"text\n", content[::-1], content * 2)
    yield from (content[: size * part // 8] for part in range(1, 8))
    yield content[: size // 2] + b"\0" * (size - size // 2)
    yield content + b"\0"
    for _ in range(8):
        flipped = bytearray(content)
        for _ in range(3):
            flipped[rng.randrange(min(size, 200))] ^= 1 << rng.randrange(8)
        yield bytes(flipped)


def _safetensors(header: Any, data: bytes = b"\0" * 24) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def _special_files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Files that are damaged on purpose: (name, content)."""
    tensor = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
    for key in tensor:
        for value in (None, "x", [], {}, -1, 1e9, True, [2**70], [-2, -3], [0, 2**70], [24, 0]):
            yield "w.safetensors", _safetensors({"a": {**tensor, key: value}})
    yield "w.safetensors", (2**63).to_bytes(8, "little") + b"{}"
    yield "w.safetensors", _safetensors({"a": None})
    yield "w.safetensors", (10**5).to_bytes(8, "little") + b"[" * 10**5
    for axes in ((2**32 - 1,) * 4, (2**31, 2**31), (0,), (1,) * 255):
        head = bytes([0, 0, 8, len(axes)]) + np.array(axes, ">u4").tobytes()
        path = folder / "made.gz"
        path.write_bytes(gzip.compress(head + b"x" * 10))
        yield "i.gz", path.read_bytes()
    for names in ("../../x.jpg 0", "/etc/passwd 0", "a\\..\\b 0", "c:x 1", ".. 0", "x.jpg 3", "x"):
        yield "partition.txt", f"{names}\n".encode()
    yield "partition.txt", "\ud800".encode("utf-16", "surrogatepass")


def data_cases(folder: Path) -> Iterator[Case]:
    """Damaged files of data and weights."""
    rng = random.Random(0)
    folder.mkdir()
    write_idx(folder / "i.gz", np.arange(60).reshape(3, 4, 5))
    np.savez(folder / "w.npz", a=np.ones((2, 3), np.float32), b=np.zeros(4))
    tensor = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
    (folder / "w.safetensors").write_bytes(_safetensors({"a": tensor}))
    (folder / "partition.txt").write_text("000001.jpg 0\n000002.jpg 1\n000003.jpg 2\n")
    lines = [f"00000{i}.jpg {' '.join(['1', '-1'] * 20)}" for i in (1, 2)]
    (folder / "attributes.txt").write_text("\n".join(["2", " ".join(ATTRIBUTES), *lines]) + "\n")
    attributes = "@relation r\n@attribute 'a b' numeric\n@attribute c {0,1}\n@data\n"
    (folder / "t.arff").write_text(f"{attributes}1.5,1\n{{0 2,1 1}}\n{{}}\n?,'0'\n")
    (folder / "l.xml").write_text('<labels><label name="a"/><label name="b"/></labels>')
    Image.fromarray(np.arange(300, dtype=np.uint8).reshape(10, 10, 3)).save(folder / "image.png")
    Image.fromarray(np.arange(100, dtype=np.uint8).reshape(10, 10)).save(folder / "labels.png")
    with zipfile.ZipFile(folder / "z.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(folder / "image.png", "img/image.png")
    readers: dict[str, Callable[[Path], object]] = {
        "i.gz": read_idx,
        "w.npz": read_tensors,
        "w.safetensors": read_tensors,
        "partition.txt": read_partition,
        "attributes.txt": read_attributes,
        "t.arff": read_arff,
        "l.xml": read_labels,
        "image.png": functools.partial(read_image, mode="RGB"),
        "labels.png": read_integers,
        "z.zip": _read_zipped,
    }

    def case(name: str, content: bytes) -> Outcome:
        path = folder / "bad" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)

        def command() -> None:
            with program("data"):
                readers[name](path)

        return attempt(command)

    for name in readers:
        for i, content in enumerate(damaged((folder / name).read_bytes(), rng)):
            yield f"{name} {i}", functools.partial(case, name, content)
    for i, (name, content) in enumerate(_special_files(folder)):
        yield f"special {i} {name}", functools.partial(case, name, content)
    whole = (folder / "z.zip").read_bytes()
    for flag, method in ((1, 8), (0, 9), (0, 99), (0, 14)):  # encrypted; deflate64, unknown, LZMA
        content = bytearray(whole)
        for mark, at in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
            place = content.index(mark) + at
            content[place] |= flag
            content[place + 2 : place + 4] = method.to_bytes(2, "little")
        yield f"zip {flag} {method}", functools.partial(case, "z.zip", bytes(content))


def _read_zipped(path: Path) -> object:
    from experiments.celeba.builder import _open_images

    with mock.patch("experiments.celeba.data.IMAGES", "img"):
        return read_image(_open_images(path) / "image.png", "RGB")
