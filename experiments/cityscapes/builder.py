"""A tensorflow-datasets builder of Cityscapes from its official files, without TensorFlow.

What is prepared is small: images and labels at training resolution, compressed. Offsets to
instance centres are computed from them when they are loaded.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from experiments.cityscapes import data as cityscapes
from experiments.cityscapes.data import Annotated, SceneData, Scenes
from experiments.data.files import DataError, check_not_empty, prepared
from experiments.data.images import read_image, read_integers, resize, resize_labels
from experiments.trainer.stream import Stream

# Folder and ending of each official file of a scene.
IMAGE = ("leftImg8bit", "leftImg8bit.png")
CLASSES = ("gtFine", "gtFine_labelIds.png")
INSTANCES = ("gtFine", "gtFine_instanceIds.png")
DISPARITY = ("disparity", "disparity.png")


class Cityscapes(tfds.core.GeneratorBasedBuilder):
    """Street scenes of 256×512 pixels with class, instance and disparity of every pixel."""

    name = "cityscapes_scenes"
    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "leftImg8bit/, gtFine/ and disparity/, unpacked from the zip files of the same names "
        "from https://www.cityscapes-dataset.com"
    )

    def _info(self) -> tfds.core.DatasetInfo:
        height, width = cityscapes.SIZE

        def tensor(dtype: Any, *channels: int) -> tfds.features.Tensor:
            shape, encoding = (height, width, *channels), tfds.features.Encoding.ZLIB
            return tfds.features.Tensor(shape=shape, dtype=dtype, encoding=encoding)

        features = {
            "image": tensor(np.uint8, 3),
            "classes": tensor(np.uint8),
            "instances": tensor(np.int32),
            "disparity": tensor(np.float32),
            "has_disparity": tensor(np.bool_),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            description=cityscapes.__doc__,
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        folder = Path(str(dl_manager.manual_dir))
        train, test = _scenes(folder, "train"), _scenes(folder, "val")
        held_out = [name for name in train if name.split("/")[1] in cityscapes.VALIDATION_CITIES]
        if not held_out:
            cities = " or ".join(cityscapes.VALIDATION_CITIES)
            raise DataError(f"{folder / IMAGE[0] / 'train'}: no scene of {cities} for validation")
        kept = [name for name in train if name not in set(held_out)]
        parts = {"train": kept, "validation": held_out, "test": test}
        return {split: self._generate_examples(folder, names) for split, names in parts.items()}

    def _generate_examples(
        self, folder: Path, names: list[str]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for i, name in enumerate(names):
            yield i, read_scene(folder, name)


def _scenes(folder: Path, part: str) -> list[str]:
    """Names such as train/aachen/aachen_000000_000019 of all images of a part, sorted."""
    root, ending = folder / IMAGE[0], f"_{IMAGE[1]}"
    found = sorted((root / part).glob(f"*/*{ending}"))
    if not found:
        raise DataError(f"{root / part}: no file */*{ending}")
    return [str(path.relative_to(root)).removesuffix(ending) for path in found]


def _path(folder: Path, name: str, kind: tuple[str, str]) -> Path:
    return folder / kind[0] / f"{name}_{kind[1]}"


def read_scene(folder: Path, name: str) -> dict[str, np.ndarray]:
    """The official files of one scene at training resolution.

    Args:
      folder: with leftImg8bit, gtFine and disparity.
      name: of the scene, "part/city/city_sequence_frame".

    Returns:
      image (h, w, 3) uint8, classes (h, w) uint8, instances (h, w) int32, disparity (h, w)
      float32 in pixels of this resolution, has_disparity (h, w) bool.

    Raises:
      DataError: naming the file that is missing, corrupt or of another size than the image.
    """
    height, width = cityscapes.SIZE
    image = read_image(_path(folder, name, IMAGE), "RGB")

    def labels(kind: tuple[str, str]) -> np.ndarray:
        path = _path(folder, name, kind)
        array = read_integers(path)
        if array.shape != (image.height, image.width):
            raise DataError(
                f"{path}: expected {image.height}×{image.width} pixels as its image has, got "
                f"{array.shape[0]}×{array.shape[1]}"
            )
        return resize_labels(array, height, width)

    label_ids = labels(CLASSES)
    if label_ids.max() > 255:
        raise DataError(f"{_path(folder, name, CLASSES)}: expected label ids of 8 bits")
    disparity, has_disparity = cityscapes.decode_disparity(labels(DISPARITY), width)
    return {
        "image": resize(image, height, width),
        "classes": cityscapes.semantic_classes(label_ids),
        "instances": cityscapes.instance_numbers(labels(INSTANCES)),
        "disparity": disparity,
        "has_disparity": has_disparity,
    }


def load_cityscapes(
    cache_dir: Path, manual_dir: Path, *, most_train: int | None = None
) -> SceneData:
    """The prepared data set as arrays; it is prepared first where it is not there yet.

    Args:
      cache_dir: folder of the prepared data set.
      manual_dir: folder with the official files; not looked at once the set is prepared.
      most_train: how many of the first training scenes; None for all.

    Returns:
      SceneData of 256×512 pixels: the official training part without `VALIDATION_CITIES`,
      these, and the official validation part as test, whose own labels are not public.

    Raises:
      DataError: for a file that is missing, corrupt or not in the official format.
    """
    check_not_empty(manual_dir)
    with prepared(cache_dir, Cityscapes.name):
        return _load(cache_dir, manual_dir, most_train)


def _load(cache_dir: Path, manual_dir: Path, most_train: int | None) -> SceneData:
    builder: Any = Cityscapes(data_dir=str(cache_dir), file_format="array_record")
    tfds.disable_progress_bar()
    config = tfds.download.DownloadConfig(manual_dir=manual_dir, try_download_gcs=False)
    builder.download_and_prepare(download_config=config)
    splits = {}
    for split in ("train", "validation", "test"):
        source = builder.as_data_source(split)
        most = most_train if split == "train" else None
        splits[split] = cityscapes.with_targets(_as_arrays(source, most))
    return SceneData(**splits)


def stream_cityscapes(cache_dir: Path, workers: int) -> Stream:
    """The training part of the prepared data set, read from its files while it is trained on."""
    with prepared(cache_dir, Cityscapes.name):
        builder: Any = Cityscapes(data_dir=str(cache_dir), file_format="array_record")
        return Stream(builder.as_data_source("train"), _scene, workers)


def _scene(example: dict[str, np.ndarray]) -> Scenes:
    offsets, has_instance = cityscapes.instance_offsets(example["instances"])
    return Scenes(
        example["image"],
        example["classes"],
        offsets,
        has_instance,
        example["disparity"],
        example["has_disparity"],
    )


def _as_arrays(source: Any, most: int | None) -> Annotated:
    size = len(source) if most is None else min(most, len(source))
    shape = (size, *cityscapes.SIZE)
    arrays = Annotated(
        np.empty((*shape, 3), np.uint8),
        np.empty(shape, np.uint8),
        np.empty(shape, np.int32),
        np.empty(shape, np.float32),
        np.empty(shape, bool),
    )
    keys = ("image", "classes", "instances", "disparity", "has_disparity")
    for i in range(size):  # one by one: twice the set would not fit everywhere
        example = source[i]
        for array, key in zip(arrays, keys, strict=True):
            array[i] = example[key]
    return arrays
