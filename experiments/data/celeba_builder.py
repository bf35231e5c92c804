"""A tensorflow-datasets builder of CelebA from its official files, without TensorFlow."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from experiments.data import celeba
from experiments.data.celeba import Attributed, AttributeData
from experiments.data.files import DataError
from experiments.data.images import read_image, resize


class Celeba(tfds.core.GeneratorBasedBuilder):
    """Aligned faces of 64×64 pixels and 40 binary attributes, official splits."""

    name = "celeba_attributes"
    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"{celeba.IMAGES}/ (aligned images), {celeba.LABELS} and {celeba.PARTITION}, from "
        "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
    )

    def _info(self) -> tfds.core.DatasetInfo:
        as_bytes = tfds.features.Encoding.BYTES
        image = tfds.features.Tensor(
            shape=(celeba.SIDE, celeba.SIDE, 3), dtype=np.uint8, encoding=as_bytes
        )
        labels = tfds.features.Tensor(
            shape=(len(celeba.ATTRIBUTES),), dtype=np.uint8, encoding=as_bytes
        )
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict({"image": image, "labels": labels}),
            description=celeba.__doc__,
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        folder = Path(str(dl_manager.manual_dir))
        images = celeba.find(folder, celeba.IMAGES)
        labels_path = celeba.find(folder, celeba.LABELS)
        attributes = celeba.read_attributes(labels_path)
        names: dict[str, list[str]] = {split: [] for split in celeba.SPLITS}
        for name, split in celeba.read_partition(celeba.find(folder, celeba.PARTITION)).items():
            if name not in attributes:
                raise DataError(f"{labels_path}: no line for {name}, which the partition lists")
            names[split].append(name)
        return {split: self._generate_examples(images, names[split], attributes) for split in names}

    def _generate_examples(
        self, folder: Path, names: list[str], attributes: dict[str, np.ndarray]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for i, name in enumerate(names):
            image = resize(read_image(folder / name, "RGB"), celeba.SIDE, celeba.SIDE)
            yield i, {"image": image, "labels": attributes[name].astype(np.uint8)}


def load_celeba(cache_dir: Path, manual_dir: Path) -> AttributeData:
    """The prepared data set as arrays; it is prepared first where it is not there yet.

    Args:
      cache_dir: folder of the prepared data set.
      manual_dir: folder with the official files; not looked at once the set is prepared.

    Returns:
      AttributeData: 162 770 train, 19 867 validation, 19 962 test.

    Raises:
      DataError: for a file that is missing, corrupt or not in the official format.
    """
    builder: Any = Celeba(data_dir=str(cache_dir), file_format="array_record")
    tfds.disable_progress_bar()
    config = tfds.download.DownloadConfig(manual_dir=manual_dir, try_download_gcs=False)
    builder.download_and_prepare(download_config=config)
    splits = {name: _as_arrays(builder.as_data_source(name)) for name in celeba.SPLITS}
    return AttributeData(celeba.ATTRIBUTES, celeba.EASY, **splits)


def _as_arrays(source: Any) -> Attributed:
    images = np.empty((len(source), celeba.SIDE, celeba.SIDE, 3), np.uint8)
    labels = np.empty((len(source), len(celeba.ATTRIBUTES)), bool)
    for i, example in enumerate(source):  # one by one: twice the set would not fit everywhere
        images[i], labels[i] = example["image"], example["labels"]
    return Attributed(images, labels)
