"""CelebA: the official folder, what is refused, the sprites, and a small run of it all."""

import dataclasses
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from experiments.celeba import command as experiment
from experiments.celeba import sprites
from experiments.celeba.builder import load_celeba
from experiments.celeba.data import ATTRIBUTES, EASY, Attributed, AttributeData, read_attributes
from experiments.celeba.problem import attribute_problem
from experiments.data.files import DataError
from experiments.models.resnet import ResNetSize
from experiments.report.writing import write_report
from experiments.trainer.config import parse
from experiments.trainer.experiment import run_experiment
from tests.experiments.official_scenes import write_celeba


def test_attributes_are_the_official_ones_in_order():
    assert len(ATTRIBUTES) == 40 and list(ATTRIBUTES) == sorted(ATTRIBUTES)
    official = {4: "Bald", 15: "Eyeglasses", 20: "Male", 31: "Smiling", 35: "Wearing_Hat"}
    assert all(ATTRIBUTES[i] == name for i, name in official.items())
    assert len(EASY) == 17 and set(EASY) < set(ATTRIBUTES)


@pytest.mark.parametrize("nested", [False, True])
def test_official_folder_round_trip_without_tensorflow(tmp_path: Path, nested: bool):
    files = tmp_path / "files"
    labels = write_celeba(files, (5, 2, 3))
    if nested:  # as the official drive divides them
        for folder, name in (
            ("Img", "img_align_celeba"),
            ("Anno", "list_attr_celeba.txt"),
            ("Eval", "list_eval_partition.txt"),
        ):
            (files / folder).mkdir()
            (files / name).rename(files / folder / name)
    data = load_celeba(tmp_path / "cache", files)
    assert [len(split.images) for split in data[2:]] == [5, 2, 3]
    assert data.train.images.shape == (5, 64, 64, 3) and data.train.images.dtype == np.uint8
    partition = (files / ("Eval" if nested else "") / "list_eval_partition.txt").read_text()
    parts = np.array([int(line.split()[1]) for line in partition.splitlines()])
    for part, split in enumerate(data[2:]):
        np.testing.assert_array_equal(split.labels, labels[parts == part])
        for number, image in zip(np.flatnonzero(parts == part) + 1, split.images, strict=True):
            path = files / ("Img" if nested else "") / f"img_align_celeba/{number:06d}.jpg"
            original = np.asarray(Image.open(path))
            for rows, full in ((slice(4, 28), slice(10, 90)), (slice(36, 60), slice(130, 210))):
                want = original[full].mean((0, 1))  # each half of these faces has one colour
                np.testing.assert_allclose(image[rows].mean((0, 1)), want, atol=1.5)
    assert "tensorflow" not in sys.modules


def test_what_is_wrong_with_a_folder_is_one_line_that_names_the_file(tmp_path: Path):
    def refused(message: str, change) -> None:
        files = tmp_path / f"files{len(list(tmp_path.iterdir()))}"
        write_celeba(files, (3, 1, 1))
        change(files)
        with pytest.raises(DataError, match=message) as info:
            load_celeba(files / "cache", files)
        assert "\n" not in str(info.value)

    def edit(name: str, old: str, new: str):
        def change(files: Path) -> None:
            text = (files / name).read_text()
            assert old in text
            (files / name).write_text(text.replace(old, new, 1))

        return change

    def cut(files: Path) -> None:
        path = files / "img_align_celeba" / "000002.jpg"
        path.write_bytes(path.read_bytes()[:300])

    image, attributes = "img_align_celeba/000002.jpg", "list_attr_celeba.txt"
    refused(f"{image}: no such file", lambda files: (files / image).unlink())
    refused(f"{image}: not a readable image", cut)
    refused(f"{image}: not a readable", lambda files: (files / image).write_text("text"))
    refused(f"{attributes}: no such file", lambda files: (files / attributes).unlink())
    refused("line 2: expected the names", edit(attributes, "Bald", "Hairless"))
    refused("line 1 promises 7 images, 5", edit(attributes, "5\n5_o", "7\n5_o"))
    refused("line 4: expected a file name and 40", edit(attributes, "000002.jpg", "000002.jpg 1"))
    refused(f"{attributes}: no line for 9.jpg", edit("list_eval_partition.txt", "000003", "9"))
    refused("line 1: expected a file name and 0", edit("list_eval_partition.txt", "jpg", "jpg 0"))


def test_attribute_file_is_read_by_name(tmp_path: Path):
    labels = write_celeba(tmp_path / "f", (2, 1, 1))
    found = read_attributes(tmp_path / "f" / "list_attr_celeba.txt")
    np.testing.assert_array_equal(found["000003.jpg"], labels[2])


@pytest.fixture(scope="module")
def small() -> AttributeData:
    """A few sprites."""
    with pytest.MonkeyPatch.context() as patch:
        for name, size in (("NUM_TRAIN", 96), ("NUM_VALIDATION", 10), ("NUM_TEST", 13)):
            patch.setattr(sprites, name, size)
        return sprites.load_sprites()


def test_sprites_follow_from_the_seed(small: AttributeData, monkeypatch: pytest.MonkeyPatch):
    assert len(sprites.TASKS) == 40 and list(sprites.TASKS) == sorted(sprites.TASKS)
    assert len(sprites.EASY) == 17 and set(sprites.EASY) < set(sprites.TASKS)
    for name, size in (("NUM_TRAIN", 96), ("NUM_VALIDATION", 10), ("NUM_TEST", 13)):
        monkeypatch.setattr(sprites, name, size)
    again, other = sprites.load_sprites(0), sprites.load_sprites(1)
    np.testing.assert_array_equal(small.train.images, again.train.images)
    assert not np.array_equal(small.train.images, other.train.images)


def test_sprites_show_what_their_labels_say(small: AttributeData):
    images = small.train.images.astype(float)
    labels = {name: small.train.labels[:, i] for i, name in enumerate(small.tasks)}
    pixels = images[:, 3:29, 3:29].reshape(len(images), -1, 3)
    blue = np.median(pixels[..., 2] - pixels[..., 0], axis=1) > 0
    np.testing.assert_array_equal(blue, labels["background_blue"])
    frame = np.concatenate([images[:, 0].mean((1, 2)), images[:, -1].mean((1, 2))]).reshape(2, -1)
    np.testing.assert_array_equal(frame.mean(0) < 60, labels["border"])
    np.testing.assert_array_equal(labels["left_xor_high"], labels["left"] ^ labels["high"])


def test_sprite_attributes_are_correlated_and_of_varied_rates(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sprites, "render", lambda rng, attributes: np.zeros((1, 1)))
    labels = sprites.load_sprites().train.labels.astype(float)
    rates, correlation = labels.mean(0), np.corrcoef(labels.T)
    assert rates.min() > 0.05 and rates.max() < 0.95 and np.ptp(rates) > 0.3
    off_diagonal = np.abs(correlation[~np.eye(40, dtype=bool)])
    assert off_diagonal.max() > 0.3 and off_diagonal.mean() > 3 / np.sqrt(len(labels))


TINY = ResNetSize(widths=(4, 8), blocks=(1, 1), pool=4)


def test_a_tiny_run_leaves_table_and_radar(small: AttributeData, tmp_path: Path):
    problem = attribute_problem(small, TINY)
    args = ["--methods", "mgda_ub", "--epochs", "1", "--batch-size", "32"]
    config = parse(experiment.CelebaConfig, "celeba", args).resolved()
    config = dataclasses.replace(config, runs_dir=tmp_path, log_points=2)
    facts = {"shown": "error", "easy": list(small.easy), "paper": experiment.PAPER}
    path = run_experiment(problem, config, "celeba", facts)
    text = write_report(path)
    assert " 8.25 |" in text and "mean error %" in text
    for name in ("table.md", "attributes.png", "weights.png"):
        assert (path / name).stat().st_size > 0
    first = (path / "attributes.png").read_bytes()
    write_report(path)
    assert (path / "attributes.png").read_bytes() == first


def test_losses_are_the_heads_cross_entropies(small: AttributeData):
    problem = attribute_problem(small, TINY)
    shared, own = problem.init(jax.random.key(0))
    examples = jax.tree.map(lambda a: a[:4], small.train)
    batch = problem.prepare(examples, None)
    z, stats = jax.jit(problem.encode)(shared, batch)
    losses, _ = jax.jit(problem.decode)(own, np.stack([z] * 40), batch)
    assert list(losses) == sorted(small.tasks)
    for t in (0, 17, 39):
        logits = np.asarray(z, float) @ np.asarray(own["kernel"][t], float)
        log_z = np.log(np.exp(logits).sum(1))
        want = np.mean(log_z - logits[np.arange(4), small.train.labels[:4, t].astype(int)])
        np.testing.assert_allclose(losses[small.tasks[t]], want, rtol=1e-5)
    moved, same = problem.absorb((shared, own), (stats, None))
    assert moved.params is shared.params and same is own
    changed = [
        not np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(moved.stats), jax.tree.leaves(shared.stats), strict=True)
    ]
    assert all(changed)


def test_attributed_is_a_pytree_of_two_arrays(small: AttributeData):
    assert isinstance(small.train, Attributed) and len(jax.tree.leaves(small.train)) == 2
