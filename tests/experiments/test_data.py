"""Composition of MultiMNIST, the digits set, the builder and what it refuses."""

import gzip
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments.data.files import DataError, check_file, read_idx
from experiments.multimnist import builder as multi_mnist_builder
from experiments.multimnist import data as multi_mnist
from experiments.multimnist.builder import PAIRINGS, load_multi_mnist
from experiments.multimnist.digits import NUM_TEST, NUM_VALIDATION, enlarge, load_digits
from tests.experiments.official_files import write_idx, write_mnist


def test_composition_pixel_by_pixel():
    rng = np.random.default_rng(0)
    left, right = rng.integers(256, size=(2, 3, 28, 28)).astype(np.uint8)
    got = multi_mnist.resize_nearest(multi_mnist.overlay(left, right, 36), 28)
    assert got.shape == (3, 28, 28) and got.dtype == np.uint8
    for i in range(28):
        for j in range(28):
            row, column = int((i + 0.5) * 36 / 28), int((j + 0.5) * 36 / 28)
            want = np.zeros(3, np.uint8)
            if row < 28 and column < 28:
                want = np.maximum(want, left[:, row, column])
            if row >= 8 and column >= 8:
                want = np.maximum(want, right[:, row - 8, column - 8])
            np.testing.assert_array_equal(got[:, i, j], want)


def test_partners_are_never_oneself_and_uniform_over_the_others():
    drawn = np.stack([multi_mnist.partners(np.random.default_rng(s), 5) for s in range(4000)])
    for left in range(5):
        counts = np.bincount(drawn[:, left], minlength=5)
        assert counts[left] == 0
        others = np.delete(counts, left)
        assert abs(others - 1000).max() < 5 * np.sqrt(4000 * 0.25 * 0.75)  # five sigma


def test_validation_images_are_unseen_in_training():
    # One pixel identifies each image: constant images of distinct brightness.
    images = np.repeat(np.arange(1, 201, dtype=np.uint8), 28 * 28).reshape(200, 28, 28)
    labels = np.arange(200) % 10
    source = {"train": (images, labels), "test": (images[:20], labels[:20])}
    splits = multi_mnist.compose_splits(source, None, 50)
    assert [len(splits[name].images) for name in ("train", "validation", "test")] == [150, 50, 20]
    left, right = ({n: set(s.images[:, i, i]) for n, s in splits.items()} for i in (0, 27))
    # The right digit fills its corner alone, so its pixel is its own; both have an identity.
    assert not (left["train"] | right["train"]) & (left["validation"] | right["validation"])
    again = multi_mnist.compose_splits(source, None, 50)
    np.testing.assert_array_equal(splits["train"].labels, again["train"].labels)


def test_digits_parts_share_no_digit():
    from sklearn.datasets import load_digits as load_sklearn_digits

    data = load_digits()
    images, _ = load_sklearn_digits(return_X_y=True)
    originals = enlarge(np.reshape(images, (-1, 8, 8)) * (255 / 16), 12).round().astype(np.uint8)
    assert len(data.test.images) == NUM_TEST * 5
    assert len(data.validation.images) == NUM_VALIDATION * 5
    assert len(data.train.images) == (1797 - NUM_TEST - NUM_VALIDATION) * 5
    # A left digit's top rows are its own pixels: find each composed image's left digit by them.
    tops = {}
    for index, image in enumerate(originals):
        tops.setdefault(image[:4].tobytes(), set()).add(index)
    used = []
    for split in (data.train, data.validation, data.test):
        indices = [tops[image[:4, :12].tobytes()] for image in split.images]
        assert all(len(found) >= 1 for found in indices)
        used.append(set().union(*(found for found in indices if len(found) == 1)))
    assert len(used[0]) > 1000
    assert not used[0] & used[1] and not used[0] & used[2] and not used[1] & used[2]
    for split in data[:3]:
        assert set(split.labels.ravel()) == set(range(10))


def test_enlarge_is_exact_on_a_plane():
    # Bilinear interpolation reproduces a linear function away from the clamped border.
    rows, columns = np.mgrid[:8, :8]
    out = enlarge((3.0 * rows + 5.0 * columns)[None], 16)[0]
    centre = (np.arange(16) + 0.5) * 8 / 16 - 0.5
    want = 3 * centre[:, None] + 5 * centre[None]
    np.testing.assert_allclose(out[1:-1, 1:-1], want[1:-1, 1:-1], rtol=1e-12)


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a tiny MNIST and a tiny Fashion-MNIST, known to the builder."""
    mnist = write_mnist(tmp_path / "files" / "mnist", "mnist", 24, 8, seed=0)
    fashion = write_mnist(tmp_path / "files" / "fashion", "fashion", 30, 6, seed=1)
    monkeypatch.setattr(multi_mnist, "NUM_VALIDATION", 4)
    for name, pairing in {"mnist": (mnist, mnist), "mnist_fashion": (mnist, fashion)}.items():
        monkeypatch.setitem(PAIRINGS, name, pairing)
    return tmp_path / "files"


def test_builder_round_trip_without_tensorflow(tiny: Path, tmp_path: Path):
    data = load_multi_mnist("mnist", tmp_path / "cache", tiny / "mnist")
    assert [s.images.shape for s in data[:3]] == [(20, 28, 28), (4, 28, 28), (8, 28, 28)]
    assert data.train.images.dtype == np.uint8 and data.train.labels.dtype == np.int32
    raw = {
        split: (
            read_idx(tiny / "mnist" / f"{prefix}-images-idx3-ubyte.gz"),
            read_idx(tiny / "mnist" / f"{prefix}-labels-idx1-ubyte.gz"),
        )
        for split, prefix in (("train", "train"), ("test", "t10k"))
    }
    for split, want in multi_mnist.compose_splits(raw, None, 4).items():
        np.testing.assert_array_equal(getattr(data, split).images, want.images)
        np.testing.assert_array_equal(getattr(data, split).labels, want.labels)
    assert "tensorflow" not in sys.modules


def test_builder_pairs_two_sets(tiny: Path, tmp_path: Path):
    data = load_multi_mnist("mnist_fashion", tmp_path / "cache", tiny)
    labels = read_idx(tiny / "mnist" / "t10k-labels-idx1-ubyte.gz")
    np.testing.assert_array_equal(data.test.labels[:, 0], labels)
    corner = read_idx(tiny / "fashion" / "t10k-images-idx3-ubyte.gz")[:, -1, -1]
    assert set(data.test.images[:, -1, -1]) <= set(corner)


def test_missing_and_altered_files_are_named(tiny: Path, tmp_path: Path):
    name = "train-labels-idx1-ubyte.gz"
    write_idx(tiny / "mnist" / name, np.zeros(24))
    with pytest.raises(DataError, match=f"{name}: checksum mismatch"):
        load_multi_mnist("mnist", tmp_path / "cache", tiny / "mnist")
    (tiny / "mnist" / name).unlink()
    with pytest.raises(DataError, match=f"{name}: no such file"):
        load_multi_mnist("mnist", tmp_path / "cache", tiny / "mnist")


def test_failed_download_says_what_to_do(tiny: Path, tmp_path: Path):
    with pytest.raises(
        DataError, match=r"http://localhost:9/: download failed .*--data-dir"
    ) as info:
        load_multi_mnist("mnist", tmp_path / "cache")
    assert "\n" not in str(info.value)


def test_broken_idx_files_are_named(tmp_path: Path):
    path = tmp_path / "images.gz"
    write_idx(path, np.arange(12).reshape(3, 2, 2))
    np.testing.assert_array_equal(read_idx(path), np.arange(12).reshape(3, 2, 2))
    whole = path.read_bytes()
    for broken in (whole[:-9], whole[:15], b"not gzip"):
        path.write_bytes(broken)
        with pytest.raises(DataError, match="images.gz: not a readable gzip file"):
            read_idx(path)
    payload = gzip.decompress(whole)
    for content, message in (
        (payload[:-1], "promises shape"),
        (payload + b"x", "promises shape"),
        (payload[:9], "cut short"),
        (b"text", "not an IDX file"),
    ):
        path.write_bytes(gzip.compress(content))
        with pytest.raises(DataError, match=f"images.gz: .*{message}"):
            read_idx(path)
    with pytest.raises(DataError, match="absent.gz: no such file"):
        check_file(tmp_path / "absent.gz", None)


def test_official_checksums_are_sha256_of_four_files():
    for source in (multi_mnist_builder.MNIST, multi_mnist_builder.FASHION):
        assert len(source.checksums) == 4 == len(set(source.checksums.values()))
        assert all(len(bytes.fromhex(checksum)) == 32 for checksum in source.checksums.values())
