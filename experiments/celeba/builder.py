"""A tensorflow-datasets builder of CelebA from its official files, without TensorFlow.

The files are downloaded or lie in a manual directory; images are read straight from the zip.
"""

import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from experiments.celeba import data as celeba
from experiments.celeba.data import Attributed, AttributeData
from experiments.data.downloads import give_up_soon
from experiments.data.files import DataError, check_not_empty, prepared, sha256
from experiments.data.images import read_image, resize
from experiments.trainer.stream import Stream


class Remote(NamedTuple):
    """A file to download: its address, size in bytes and SHA-256."""

    url: str
    size: int
    checksum: str


_DRIVE = "https://drive.google.com/uc?export=download&id="
# As tensorflow-datasets registers them for its own celeb_a; the small ones come first.
FILES = {
    celeba.PARTITION: Remote(
        f"{_DRIVE}0B7EVK8r0v71pY0NSMzRuSXJEVkk",
        2_836_386,
        "fc955bcb3ef8fbdf7d5640d9a8693a8431b5f2ee291a5c1449a1549e7e073fe7",
    ),
    celeba.LABELS: Remote(
        f"{_DRIVE}0B7EVK8r0v71pblRyaVFSWGxPY0U",
        26_721_026,
        "f0e5da289d5ccf75ffe8811132694922b60f2af59256ed362afa03fefba324d0",
    ),
    celeba.ARCHIVE: Remote(
        f"{_DRIVE}0B7EVK8r0v71pZjFTYXZWM3FlRnM",
        1_443_490_838,
        "46fb89443c578308acf364d7d379fe1b9efb793042c0af734b6112e4fd3a8c74",
    ),
}


class Celeba(tfds.core.GeneratorBasedBuilder):
    """Aligned faces of 64×64 pixels and 40 binary attributes, official splits."""

    name = "celeba_attributes"
    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"{celeba.ARCHIVE} (or its folder), {celeba.LABELS} and {celeba.PARTITION}, from "
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
        images_path, labels_path, partition_path = _locate(dl_manager)
        images = _open_images(images_path)
        attributes = celeba.read_attributes(labels_path)
        names: dict[str, list[str]] = {split: [] for split in celeba.SPLITS}
        for name, split in celeba.read_partition(partition_path).items():
            if name not in attributes:
                raise DataError(f"{labels_path}: no line for {name}, which the partition lists")
            names[split].append(name)
        for split, listed in names.items():
            if not listed:
                raise DataError(f"{partition_path}: no image of the {split} part")
        return {split: self._generate_examples(images, names[split], attributes) for split in names}

    def _generate_examples(
        self, folder: Path | zipfile.Path, names: list[str], attributes: dict[str, np.ndarray]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for i, name in enumerate(names):
            image = resize(read_image(folder / name, "RGB"), celeba.SIDE, celeba.SIDE)
            yield i, {"image": image, "labels": attributes[name].astype(np.uint8)}


def load_celeba(
    cache_dir: Path, manual_dir: Path | None = None, *, most_train: int | None = None
) -> AttributeData:
    """The prepared data set as arrays; it is prepared first where it is not there yet.

    Args:
      cache_dir: folder of the prepared data set and of downloads.
      manual_dir: folder with the official files, the images zipped or not; None to download
        them. Not looked at once the set is prepared.
      most_train: how many of the first training examples; None for all.

    Returns:
      AttributeData: 162 770 train, 19 867 validation, 19 962 test.

    Raises:
      DataError: for a file that is missing, corrupt or not in the official format, and for a
        download that fails.
    """
    check_not_empty(manual_dir)
    with prepared(cache_dir, Celeba.name):
        return _load(cache_dir, manual_dir, most_train)


def _load(cache_dir: Path, manual_dir: Path | None, most_train: int | None) -> AttributeData:
    builder: Any = Celeba(data_dir=str(cache_dir), file_format="array_record")
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    config = tfds.download.DownloadConfig(manual_dir=manual_dir, try_download_gcs=False)
    give_up_soon()
    builder.download_and_prepare(download_dir=str(cache_dir / "downloads"), download_config=config)
    most = {"train": most_train}
    splits = {
        name: _as_arrays(builder.as_data_source(name), most.get(name)) for name in celeba.SPLITS
    }
    return AttributeData(celeba.ATTRIBUTES, celeba.EASY, **splits)


def stream_celeba(cache_dir: Path, workers: int) -> Stream:
    """The training part of the prepared data set, read from its files while it is trained on."""
    with prepared(cache_dir, Celeba.name):
        builder: Any = Celeba(data_dir=str(cache_dir), file_format="array_record")
        return Stream(builder.as_data_source("train"), _attributed, workers)


def _attributed(example: dict[str, np.ndarray]) -> Attributed:
    return Attributed(example["image"], example["labels"].astype(bool))


def _as_arrays(source: Any, most: int | None) -> Attributed:
    size = len(source) if most is None else min(most, len(source))
    images = np.empty((size, celeba.SIDE, celeba.SIDE, 3), np.uint8)
    labels = np.empty((size, len(celeba.ATTRIBUTES)), bool)
    for i in range(size):  # one by one: twice the set would not fit everywhere
        images[i], labels[i] = _attributed(source[i])
    return Attributed(images, labels)


def _locate(dl_manager: tfds.download.DownloadManager) -> tuple[Path, Path, Path]:
    """Where images, labels and partition are; they are downloaded where no folder is named."""
    try:
        folder = Path(str(dl_manager.manual_dir))
    except AssertionError:  # how the download manager says that there is no manual folder
        found = {name: _download(name, dl_manager) for name in FILES}
        return found[celeba.ARCHIVE], found[celeba.LABELS], found[celeba.PARTITION]
    images = celeba.find(folder, celeba.IMAGES, celeba.ARCHIVE)
    return images, celeba.find(folder, celeba.LABELS), celeba.find(folder, celeba.PARTITION)


def _download(name: str, dl_manager: tfds.download.DownloadManager) -> Path:
    remote = FILES[name]
    try:
        path = Path(str(dl_manager.download(remote.url)))
    # ValueError and ImportError: of Google Drive's page that warns before a large file.
    except (OSError, tfds.download.DownloadError, ValueError, ImportError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise _failed(name, reason) from None
    size = path.stat().st_size
    if size != remote.size or sha256(path) != remote.checksum:
        for kept in (path, Path(f"{path}.INFO")):  # or the manager would return it again
            kept.unlink(missing_ok=True)
        raise _failed(
            name,
            f"checksum mismatch, expected {remote.size} bytes of sha256 {remote.checksum}, "
            f"got {size} bytes",
        )
    return path


def _failed(name: str, reason: str) -> DataError:
    return DataError(
        f"{FILES[name].url}: download of {name} failed ({reason}); "
        f"fetch {', '.join(FILES)} yourself and name their folder with --data-dir"
    )


def _open_images(path: Path) -> Path | zipfile.Path:
    """The folder of images, on disk or inside the zip."""
    if path.is_dir():
        return path
    try:
        return zipfile.Path(path) / celeba.IMAGES
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a readable zip file ({error})") from None
