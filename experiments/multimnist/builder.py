"""A tensorflow-datasets builder of MultiMNIST that needs no TensorFlow.

Prepared examples are array_record files; the four official files come from a mirror or
from a manual directory, and either way their checksums are verified.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

from experiments.data.downloads import give_up_soon
from experiments.data.files import DataError, check_file, prepared, read_idx
from experiments.multimnist import data as multi_mnist
from experiments.multimnist.data import Dataset, Split


@dataclasses.dataclass(frozen=True)
class Source:
    """An image set in the official MNIST format: where its four files are, and their SHA-256."""

    name: str
    url: str
    checksums: Mapping[str, str]


MNIST = Source(
    "mnist",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    {
        "train-images-idx3-ubyte.gz": (
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
        ),
        "train-labels-idx1-ubyte.gz": (
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
        ),
        "t10k-images-idx3-ubyte.gz": (
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
        ),
        "t10k-labels-idx1-ubyte.gz": (
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"
        ),
    },
)
FASHION = Source(
    "fashion",
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    {
        "train-images-idx3-ubyte.gz": (
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"
        ),
        "train-labels-idx1-ubyte.gz": (
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"
        ),
        "t10k-images-idx3-ubyte.gz": (
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"
        ),
        "t10k-labels-idx1-ubyte.gz": (
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"
        ),
    },
)
PAIRINGS = {
    "mnist": (MNIST, MNIST),
    "fashion": (FASHION, FASHION),
    "mnist_fashion": (MNIST, FASHION),
}


class MultiMnist(tfds.core.GeneratorBasedBuilder):
    """Two overlapping images, the labels being the left and the right one's class."""

    name = "multi_mnist"
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name=name, description=f"{left.name} left, {right.name} right")
        for name, (left, right) in PAIRINGS.items()
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = "The four official .gz files, in a folder of their set's name."

    def _info(self) -> tfds.core.DatasetInfo:
        size = multi_mnist.DIGIT_SIZE
        image = tfds.features.Tensor(
            shape=(size, size), dtype=np.uint8, encoding=tfds.features.Encoding.BYTES
        )
        labels = {task: tfds.features.ClassLabel(num_classes=10) for task in multi_mnist.TASKS}
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict({"image": image, **labels}),
            description=multi_mnist.__doc__,
            disable_shuffling=True,  # the trainer shuffles; the order is that of the left set
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        pairing = PAIRINGS[str(self.builder_config_name)]
        left, right = (_read_source(_locate(source, dl_manager)) for source in pairing)
        other = None if pairing[0] is pairing[1] else right
        splits = multi_mnist.compose_splits(left, other, multi_mnist.NUM_VALIDATION)
        return {name: self._generate_examples(split) for name, split in splits.items()}

    def _generate_examples(self, split: Split) -> Iterator[tuple[int, dict[str, Any]]]:
        for i, (image, labels) in enumerate(zip(split.images, split.labels, strict=True)):
            pair = dict(zip(multi_mnist.TASKS, map(int, labels), strict=True))
            yield i, {"image": image, **pair}


def load_multi_mnist(pairing: str, cache_dir: Path, manual_dir: Path | None = None) -> Dataset:
    """The prepared data set as arrays; it is prepared first where it is not there yet.

    Args:
      pairing: a key of `PAIRINGS`.
      cache_dir: folder of the prepared data set and of downloads.
      manual_dir: folder with the official files (or one sub-folder a set, named
        "mnist" and "fashion"); None to download them.

    Returns:
      Dataset of 28×28 images: 55 000 train, 5 000 validation, 10 000 test.

    Raises:
      DataError: for a file that is missing, corrupt or not the official one, and for a
        download that fails.
    """
    if manual_dir is not None:  # also where the prepared set is there: what is named is checked
        for source in PAIRINGS[pairing]:
            for name, checksum in source.checksums.items():
                check_file(_manual_folder(manual_dir, source) / name, checksum)
    with prepared(cache_dir, f"{MultiMnist.name}/{pairing}"):
        return _load(pairing, cache_dir, manual_dir)


def _load(pairing: str, cache_dir: Path, manual_dir: Path | None) -> Dataset:
    builder: Any = MultiMnist(config=pairing, data_dir=str(cache_dir), file_format="array_record")
    tfds.disable_progress_bar()
    config = tfds.download.DownloadConfig(manual_dir=manual_dir, try_download_gcs=False)
    give_up_soon()
    builder.download_and_prepare(download_dir=str(cache_dir / "downloads"), download_config=config)
    splits = {name: _as_arrays(builder.as_data_source(name)) for name in builder.info.splits}
    return Dataset(**splits, mean=multi_mnist.MEAN, std=multi_mnist.STD)


def _as_arrays(source: Any) -> Split:
    examples = source.__getitems__(range(len(source)))
    labels = [[example[task] for task in multi_mnist.TASKS] for example in examples]
    return Split(np.stack([e["image"] for e in examples]), np.asarray(labels, np.int32))


def _manual_folder(manual_dir: Path, source: Source) -> Path:
    named = manual_dir / source.name
    return named if named.is_dir() else manual_dir


def _locate(source: Source, dl_manager: tfds.download.DownloadManager) -> dict[str, Path]:
    try:
        folder = _manual_folder(Path(str(dl_manager.manual_dir)), source)
    except AssertionError:  # how the download manager says that there is no manual folder
        paths = _download(source, dl_manager)
    else:
        paths = {name: folder / name for name in source.checksums}
    for name, path in paths.items():  # a cached download is not hashed again by the manager
        check_file(path, source.checksums[name])
    return paths


def _download(source: Source, dl_manager: tfds.download.DownloadManager) -> dict[str, Path]:
    urls: Any = {name: source.url + name for name in source.checksums}
    try:
        paths: Any = dl_manager.download(urls)
    except (OSError, tfds.download.DownloadError, NonMatchingChecksumError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"{source.url}: download failed ({reason}); fetch the files "
            f"{', '.join(source.checksums)} yourself and name their folder with --data-dir"
        ) from None
    return {name: Path(path) for name, path in paths.items()}


def _read_source(paths: Mapping[str, Path]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    arrays = {}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        image_path = paths[f"{prefix}-images-idx3-ubyte.gz"]
        label_path = paths[f"{prefix}-labels-idx1-ubyte.gz"]
        images, labels = read_idx(image_path), read_idx(label_path)
        size = multi_mnist.DIGIT_SIZE
        if images.ndim != 3 or images.shape[1:] != (size, size):
            raise DataError(f"{image_path}: expected images of {size}×{size}, got {images.shape}")
        if not len(images):
            raise DataError(f"{image_path}: no image")
        if labels.shape != (len(images),):
            raise DataError(
                f"{label_path}: expected {len(images)} labels, one an image, got {labels.shape}"
            )
        arrays[split] = (images, labels)
    return arrays
