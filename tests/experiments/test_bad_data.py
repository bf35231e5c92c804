"""Folders of official files, and prepared data sets, that are not what they should be."""

import zipfile
from pathlib import Path

import pytest
from PIL import Image

from experiments.celeba import builder as celeba_builder
from experiments.celeba.builder import load_celeba
from experiments.celeba.data import read_partition
from experiments.cityscapes.builder import load_cityscapes
from experiments.data.files import DataError
from experiments.data.images import read_image
from experiments.multimnist import builder as multi_mnist_builder
from tests.experiments.official_scenes import write_celeba


@pytest.mark.parametrize("name", ["../secret.jpg", "/etc/passwd", "a/b.jpg", "..", "a\\b", "c:x"])
def test_lists_of_files_do_not_lead_out_of_their_folder(tmp_path: Path, name: str):
    (tmp_path / "partition.txt").write_text(f"000001.jpg 0\n{name} 0\n")
    with pytest.raises(DataError, match="line 2: expected the name of a file"):
        read_partition(tmp_path / "partition.txt")
    files = tmp_path / "files"
    write_celeba(files, (3, 1, 1))
    for listed in ("list_eval_partition.txt", "list_attr_celeba.txt"):
        text = (files / listed).read_text()
        (files / listed).write_text(text.replace("000002.jpg", name))
    with pytest.raises(DataError, match="expected the name of a file"):
        load_celeba(tmp_path / "cache", files)


def test_every_download_is_encrypted():
    sources = (multi_mnist_builder.MNIST, multi_mnist_builder.FASHION)
    urls = [source.url for source in sources]
    urls += [remote.url for remote in celeba_builder.FILES.values()]
    assert all(url.startswith("https://") for url in urls)


def test_an_empty_folder_of_files_is_named(tmp_path: Path):
    (tmp_path / "files").mkdir()
    for load in (load_celeba, load_cityscapes):
        with pytest.raises(DataError, match="files: an empty folder"):
            load(tmp_path / "cache", tmp_path / "files")


def test_a_part_without_examples_is_named(tmp_path: Path):
    write_celeba(tmp_path / "files", (3, 1, 1))
    path = tmp_path / "files" / "list_eval_partition.txt"
    path.write_text(path.read_text().replace(" 1\n", " 0\n"))
    with pytest.raises(DataError, match=r"partition\.txt: no image of the validation part"):
        load_celeba(tmp_path / "cache", tmp_path / "files")


@pytest.mark.parametrize("damage", ["cut", "zeros", "text"])
def test_a_damaged_prepared_set_is_named_with_the_remedy(tmp_path: Path, damage: str):
    write_celeba(tmp_path / "files", (3, 1, 1))
    load_celeba(tmp_path / "cache", tmp_path / "files")
    folder = tmp_path / "cache" / "celeba_attributes"
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        whole = path.read_bytes()
        changed = {"cut": whole[: len(whole) // 2], "zeros": b"\0" * len(whole), "text": b"text"}
        path.write_bytes(changed[damage])
        try:
            load_celeba(tmp_path / "cache", tmp_path / "files")
        except DataError as error:
            assert str(folder) in str(error) and "\n" not in str(error)
            assert "prepared anew" in str(error)
        path.write_bytes(whole)


def test_images_of_too_many_pixels_are_refused_before_they_are_decoded(tmp_path: Path):
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    with pytest.raises(DataError, match=r"bomb\.png: not a readable image \(.*pixels"):
        read_image(tmp_path / "bomb.png", "RGB")


def test_an_encrypted_archive_is_named(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("a.png", b"x" * 50)
    content = bytearray((tmp_path / "z.zip").read_bytes())
    content[content.index(b"PK\3\4") + 6] |= 1
    content[content.index(b"PK\1\2") + 8] |= 1
    (tmp_path / "z.zip").write_bytes(content)
    with pytest.raises(DataError, match="z.zip/a.png: not a readable image"):
        read_image(zipfile.Path(tmp_path / "z.zip") / "a.png")
