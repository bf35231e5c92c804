"""Tiny CelebA and Cityscapes folders in the official layouts, written by the tests."""

import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from experiments.celeba.data import ATTRIBUTES


def write_celeba(folder: Path, sizes: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """Random faces of 178×218 pixels, splits interleaved; the labels (N, 40) bool by number."""
    rng = np.random.default_rng(seed)
    parts = rng.permutation(np.repeat([0, 1, 2], sizes))
    labels = rng.random((len(parts), len(ATTRIBUTES))) < 0.4
    (folder / "img_align_celeba").mkdir(parents=True)
    names = [f"{i:06d}.jpg" for i in range(1, len(parts) + 1)]
    for name in names:
        colour = rng.integers(256, size=3).astype(np.uint8)
        face = np.broadcast_to(colour, (218, 178, 3)).copy()
        face[:109] //= 2
        Image.fromarray(face).save(folder / "img_align_celeba" / name, quality=95)
    rows = ("  ".join("1" if value else "-1" for value in row) for row in labels)
    lines = [f"{name} {row}" for name, row in zip(names, rows, strict=True)]
    text = "\n".join([str(len(names)), " ".join(ATTRIBUTES) + " ", *lines])
    (folder / "list_attr_celeba.txt").write_text(text + "\n")
    lines = [f"{name} {part}" for name, part in zip(names, parts, strict=True)]
    (folder / "list_eval_partition.txt").write_text("\n".join(lines) + "\n")
    return labels


def zip_faces(folder: Path) -> None:
    """Put img_align_celeba/ of that folder into the official zip instead."""
    images = folder / "img_align_celeba"
    with zipfile.ZipFile(folder / "img_align_celeba.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir(images.name)
        for path in sorted(images.iterdir()):
            archive.write(path, f"{images.name}/{path.name}")
            path.unlink()
    images.rmdir()


def write_scene(folder: Path, part: str, city: str, number: int, arrays: dict) -> str:
    """One scene's four official files; its name."""
    name = f"{part}/{city}/{city}_{number:06d}_000019"
    for kind, ending, key in (
        ("leftImg8bit", "leftImg8bit", "image"),
        ("gtFine", "gtFine_labelIds", "labels"),
        ("gtFine", "gtFine_instanceIds", "instances"),
        ("disparity", "disparity", "disparity"),
    ):
        path = folder / kind / f"{name}_{ending}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(arrays[key]).save(path)
    return name


def random_scene(rng: np.random.Generator, height: int = 64, width: int = 128) -> dict:
    """Blocks of random labels, two cars among them, and a disparity with holes."""
    labels = np.kron(rng.integers(34, size=(4, 8)), np.ones((height // 4, width // 8), int))
    instances = labels.copy()
    for k in range(2):
        row, column = rng.integers(height - 16), rng.integers(width - 24)
        block = (slice(row, row + 16), slice(column, column + 24))
        labels[block], instances[block] = 26, 26000 + k
    disparity = rng.integers(1, 30_000, size=(height, width))
    disparity[rng.random((height, width)) < 0.3] = 0
    return {
        "image": rng.integers(256, size=(height, width, 3)).astype(np.uint8),
        "labels": labels.astype(np.uint8),
        "instances": instances.astype(np.uint16),
        "disparity": disparity.astype(np.uint16),
    }


def write_cityscapes(folder: Path, seed: int = 0) -> dict[str, dict]:
    """Three training scenes, two of a held-out city, one of the official validation part."""
    rng, scenes = np.random.default_rng(seed), {}
    for part, city, number in (
        ("train", "aachen", 0), ("train", "aachen", 1), ("train", "bremen", 0),
        ("train", "weimar", 0), ("train", "weimar", 1), ("val", "lindau", 0),
    ):  # fmt: skip
        arrays = random_scene(rng)
        scenes[write_scene(folder, part, city, number, arrays)] = arrays
    return scenes
