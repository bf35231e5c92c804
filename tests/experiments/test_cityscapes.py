"""Cityscapes: the official folder, targets, augmentation, rendered scenes, a small run."""

import dataclasses
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.cityscapes import command as experiment
from experiments.cityscapes import data as cityscapes
from experiments.cityscapes import street_scenes
from experiments.cityscapes.augmentation import augment, flip, rotate
from experiments.cityscapes.builder import load_cityscapes
from experiments.cityscapes.data import IGNORE, Annotated, SceneData, Scenes, with_targets
from experiments.cityscapes.problem import scene_problem
from experiments.cityscapes.street_scenes import render_scenes
from experiments.data.files import DataError
from experiments.models.dilated import DilatedSize, dilated_resnet
from experiments.report.writing import write_report
from experiments.trainer.config import parse
from experiments.trainer.experiment import run_experiment
from tests.experiments.official_scenes import write_cityscapes

SIZE = (16, 32)  # a quarter of the tests' scenes, as 256×512 is of the official ones


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An official folder, and small sizes to prepare it at."""
    monkeypatch.setattr(cityscapes, "SIZE", SIZE)
    monkeypatch.setattr(cityscapes, "FULL_WIDTH", 128)
    return tmp_path / "files"


def test_official_folder_round_trip_without_tensorflow(files: Path, tmp_path: Path):
    scenes = write_cityscapes(files)
    data = load_cityscapes(tmp_path / "cache", files)
    assert [len(split.images) for split in data] == [3, 2, 1]
    originals = list(scenes.values())
    order = {"train": originals[:3], "validation": originals[3:5], "test": originals[5:]}
    train_ids = dict(zip(cityscapes.TRAINED_IDS, range(19), strict=True))
    for split, expected in order.items():
        got: Scenes = getattr(data, split)
        for i, scene in enumerate(expected):
            # Nearest neighbour of a fourfold reduction: pixel 2 of every four.
            labels, instances, raw = (
                scene[key][2::4, 2::4].astype(int) for key in ("labels", "instances", "disparity")
            )
            want = np.vectorize(lambda k: train_ids.get(k, IGNORE))(labels)
            np.testing.assert_array_equal(got.classes[i], want)
            np.testing.assert_array_equal(got.has_instance[i], instances >= 1000)
            for number in np.unique(instances[instances >= 1000]):
                pixels = np.argwhere(instances == number)
                centre = pixels.mean(0)
                for row, column in pixels:
                    offset = got.offsets[i, row, column]
                    expected_offset = [centre[1] - column, centre[0] - row]
                    np.testing.assert_allclose(offset, expected_offset, atol=1e-5)
            assert not got.offsets[i][instances < 1000].any()
            np.testing.assert_array_equal(got.has_disparity[i], raw > 0)
            pixels = np.where(raw > 0, (raw - 1) / 256 / 4, 0)
            np.testing.assert_allclose(got.disparity[i], pixels, rtol=1e-6)
            blocks = scene["image"].reshape(16, 4, 32, 4, 3).mean((1, 3))
            assert np.abs(got.images[i] - blocks).mean() < 25  # a wider filter than the block's
    assert "tensorflow" not in sys.modules


def test_a_disparity_of_zero_is_measured():
    disparity, valid = cityscapes.decode_disparity(np.array([[0, 1, 257]]), 512)
    np.testing.assert_array_equal(valid, [[False, True, True]])
    np.testing.assert_allclose(disparity, [[0, 0, 0.25]])


def test_what_is_wrong_with_a_folder_is_one_line_that_names_the_file(files: Path):
    def refused(message: str, change) -> None:
        folder = files / str(len(list(files.iterdir())) if files.exists() else 0)
        write_cityscapes(folder)
        change(folder)
        with pytest.raises(DataError, match=message) as info:
            load_cityscapes(folder / "cache", folder)
        assert "\n" not in str(info.value)

    name = "train/aachen/aachen_000001_000019_"
    image, labels = f"leftImg8bit/{name}leftImg8bit.png", f"gtFine/{name}gtFine_labelIds.png"
    instances, disparity = f"gtFine/{name}gtFine_instanceIds.png", f"disparity/{name}disparity.png"

    def cut(file: str, keep: int):
        return lambda folder: (folder / file).write_bytes((folder / file).read_bytes()[:keep])

    def swap(file: str, other: str):
        return lambda folder: (folder / file).write_bytes((folder / other).read_bytes())

    for file in (labels, instances, disparity):
        refused(f"{file}: no such file", lambda folder, file=file: (folder / file).unlink())
    refused(f"{image}: not a readable image", cut(image, 2000))
    refused(f"{disparity}: not a readable image", cut(disparity, 500))
    refused(f"{labels}: not a readable image", cut(labels, 0))
    refused(f"{labels}: expected one channel", swap(labels, image))
    refused(f"{labels}: expected label ids of 8 bits", swap(labels, disparity))

    def shrink(folder: Path) -> None:
        from PIL import Image

        Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / instances)

    refused(f"{instances}: expected 64×128 pixels as its image has, got 8×8", shrink)

    def no_city(folder: Path) -> None:
        (folder / "leftImg8bit/train/weimar").rename(folder / "leftImg8bit/train/jena")

    refused("no scene of weimar or zurich", no_city)
    refused("val: no file", lambda f: (f / "leftImg8bit/val").rename(f / "leftImg8bit/x"))


# Augmentation, against what rotating or mirroring an exact scene gives.


def disc_scene(centre_x: float, centre_y: float, radius: float, height=40, width=60) -> Scenes:
    """One disc on a ground whose disparity is unmeasured above the tenth row."""
    y, x = np.mgrid[:height, :width]
    disc = np.hypot(x - centre_x, y - centre_y) < radius
    offsets = np.stack([centre_x - x, centre_y - y], -1) * disc[..., None]
    measured = np.broadcast_to(y >= 10, disc.shape)
    return Scenes(
        images=jnp.asarray(np.repeat(np.where(disc, 200, 50)[..., None], 3, -1), jnp.uint8),
        classes=jnp.asarray(np.where(disc, 13, 0), jnp.uint8),
        offsets=jnp.asarray(offsets, jnp.float32),
        has_instance=jnp.asarray(disc),
        disparity=jnp.asarray(np.where(measured, np.where(disc, 7.0, 3.0), 0), jnp.float32),
        has_disparity=jnp.asarray(measured),
    )


def centres(scene: Scenes) -> np.ndarray:
    """(pixels, 2) where the offsets of all instance pixels point, x and y."""
    rows, columns = np.nonzero(np.asarray(scene.has_instance))
    return np.stack([columns, rows], 1) + np.asarray(scene.offsets)[rows, columns]


def test_flip_mirrors_everything_and_turns_the_x_of_offsets_round():
    scene = disc_scene(14.0, 22.0, 6.5)
    got = flip(scene)
    for key in ("images", "classes", "has_instance", "disparity", "has_disparity"):
        np.testing.assert_array_equal(getattr(got, key), np.asarray(getattr(scene, key))[:, ::-1])
    np.testing.assert_allclose(centres(got), [[59 - 14.0, 22.0]] * int(got.has_instance.sum()))
    back = flip(got)
    assert all(map(np.array_equal, back, scene))


@pytest.mark.parametrize("degrees", [-10.0, 4.0, 10.0, 90.0])
def test_rotated_offsets_point_at_the_rotated_centre(degrees: float):
    scene = disc_scene(20.0, 18.0, 7.5)
    got = rotate(scene, jnp.deg2rad(degrees))
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = np.array([29.5, 19.5])
    want = turn @ (np.array([20.0, 18.0]) - middle) + middle
    found = centres(got)
    assert len(found) > 100
    np.testing.assert_allclose(found, np.broadcast_to(want, found.shape), atol=1e-4)


def test_rotation_moves_labels_as_pixels_and_invents_none():
    rng = np.random.default_rng(0)
    scene = disc_scene(20.0, 18.0, 7.5)
    scene = scene._replace(
        classes=jnp.asarray(rng.integers(19, size=(40, 60)), jnp.uint8),
        disparity=jnp.where(scene.has_disparity, jnp.asarray(rng.random((40, 60)), jnp.float32), 0),
    )
    angle = np.deg2rad(8.0)
    got = rotate(scene, jnp.asarray(angle))
    cos, sin = np.cos(angle), np.sin(angle)
    seen = set(np.asarray(scene.disparity)[np.asarray(scene.has_disparity)].tolist())
    for row in range(40):
        for column in range(60):
            x, y = column - 29.5, row - 19.5
            source = (cos * x + sin * y + 29.5, -sin * x + cos * y + 19.5)
            if any(abs(s - np.floor(s) - 0.5) < 1e-3 for s in source):
                continue  # a tie between two pixels
            i, j = round(source[1]), round(source[0])
            inside = 0 <= i < 40 and 0 <= j < 60
            want = int(scene.classes[i, j]) if inside else IGNORE
            assert int(got.classes[row, column]) == want
            measured = inside and bool(scene.has_disparity[i, j])
            assert bool(got.has_disparity[row, column]) == measured
            value = float(got.disparity[row, column])
            assert value in seen if measured else value == 0
    untouched = rotate(scene, jnp.zeros(()))
    assert all(map(np.array_equal, untouched, scene))


def test_rotated_images_are_interpolated():
    y, x = np.mgrid[:40, :60]
    plane = np.repeat((2.0 * x + 1.5 * y + 20)[..., None], 3, -1)
    scene = disc_scene(20.0, 18.0, 7.5)._replace(images=jnp.asarray(plane.round(), jnp.uint8))
    angle = np.deg2rad(-6.0)
    got = np.asarray(rotate(scene, jnp.asarray(angle)).images, float)[..., 0]
    u, v = x - 29.5, y - 19.5
    source_x = np.cos(angle) * u + np.sin(angle) * v + 29.5
    source_y = -np.sin(angle) * u + np.cos(angle) * v + 19.5
    inside = (source_x > 0) & (source_x < 59) & (source_y > 0) & (source_y < 39)
    want = 2.0 * source_x + 1.5 * source_y + 20
    assert np.abs(got - want)[inside].max() <= 1.0  # rounded before and after
    outside = (source_x < -1) | (source_x > 60) | (source_y < -1) | (source_y > 40)
    assert not got[outside].any()


def test_augment_draws_for_each_scene_from_the_key():
    one = disc_scene(14.0, 22.0, 6.5)
    batch = jax.tree.map(lambda a: jnp.stack([a] * 8), one)
    run = jax.jit(augment)
    got, again, other = (
        run(batch, jax.random.key(0)),
        *map(run, [batch] * 2, jax.random.split(jax.random.key(1))),
    )
    assert all(map(np.array_equal, got, run(batch, jax.random.key(0))))
    assert not np.array_equal(got.images, again.images)
    assert not np.array_equal(again.images, other.images)
    assert len({np.asarray(image).tobytes() for image in got.images}) == 8
    middles = np.array([centres(jax.tree.map(lambda a, i=i: a[i], got))[0, 0] for i in range(8)])
    assert (middles < 29.5).any() and (middles > 29.5).any()  # some are mirrored
    assert all(a.dtype == b.dtype for a, b in zip(got, batch, strict=True))


# Rendered scenes.


@pytest.fixture(scope="module")
def small() -> SceneData:
    """A few rendered scenes."""
    with pytest.MonkeyPatch.context() as patch:
        for name, size in (("NUM_TRAIN", 8), ("NUM_VALIDATION", 3), ("NUM_TEST", 5)):
            patch.setattr(street_scenes, name, size)
        return street_scenes.load_street_scenes()


def test_rendered_scenes_follow_from_the_seed_and_are_consistent():
    scenes = render_scenes(np.random.default_rng(3), 6)
    again = render_scenes(np.random.default_rng(3), 6)
    assert all(map(np.array_equal, scenes, again))
    vehicles = {cityscapes.CLASSES.index(name) for name in ("car", "bus", "person")}
    assert (scenes.instances > 0).any()
    for i in range(6):
        classes, instances = scenes.classes[i], scenes.instances[i]
        assert set(np.unique(classes[instances > 0])) <= vehicles
        assert not np.isin(classes[instances == 0], list(vehicles)).any()
        for number in np.unique(instances[instances > 0]):
            mask = (instances == number) & scenes.has_disparity[i]
            assert len(np.unique(classes[instances == number])) == 1
            assert len(np.unique(scenes.disparity[i][mask])) <= 1  # upright: one disparity
    assert np.all(scenes.disparity[~scenes.has_disparity] == 0)
    sky = cityscapes.CLASSES.index("sky")
    assert not scenes.has_disparity[scenes.classes == sky].any()
    assert (scenes.classes == IGNORE).any()


def test_nearer_things_hide_farther_ones():
    scenes = render_scenes(np.random.default_rng(5), 10)
    road = cityscapes.CLASSES.index("road")
    rows = np.broadcast_to(np.arange(64)[:, None], (64, 128))
    for i in range(10):
        known = scenes.has_disparity[i] & (scenes.classes[i] == road)
        assert np.corrcoef(rows[known], scenes.disparity[i][known])[0, 1] > 0.999
        # Ground behind a thing's pixel would be at the row's own depth or farther.
        thing = scenes.has_disparity[i] & (scenes.instances[i] > 0)
        slope, start = np.polyfit(rows[known], scenes.disparity[i][known], 1)
        ground = slope * rows + start
        assert np.all(scenes.disparity[i][thing] > ground[thing] - slope - 1e-3)


# The problem and a run.

TINY = DilatedSize(width=4, blocks=(1, 1, 1), expansion=2)


def test_losses_and_metrics_mind_the_masks(small: SceneData):
    problem = scene_problem(small, TINY, inside=4)
    shared, own = problem.init(jax.random.key(0))
    own = jax.tree.map(jnp.zeros_like, own)  # so that every output is zero
    batch = problem.prepare(small.train, None)
    z, _ = jax.eval_shape(problem.encode, shared, batch)
    zs = jnp.zeros((3, *z.shape))
    decode, tally = jax.jit(problem.decode), jax.jit(problem.tally)
    losses, _ = decode(own, zs, batch)
    known = small.train.has_disparity
    disparity = small.train.disparity[known]
    spread = np.abs(disparity - np.median(disparity)).mean()
    np.testing.assert_allclose(losses["disparity"], 1.0, rtol=1e-4)  # that of the best constant
    np.testing.assert_allclose(losses["instance"], 1.0, rtol=1e-4)
    np.testing.assert_allclose(losses["semantic"], np.log(19), rtol=1e-5)
    # A value under a mask changes nothing.
    spoilt = small.train._replace(
        disparity=np.where(known, small.train.disparity, 1e6).astype(np.float32),
        offsets=np.where(small.train.has_instance[..., None], small.train.offsets, 1e6).astype(
            np.float32
        ),
    )
    same, _ = decode(own, zs, problem.prepare(spoilt, None))
    assert all(map(np.array_equal, jax.tree.leaves(losses), jax.tree.leaves(same)))
    tallies = tally(shared, own, batch, jnp.ones(8, bool))
    metrics = problem.metrics(tallies)
    np.testing.assert_allclose(metrics["shown"][0], spread, rtol=1e-4)
    np.testing.assert_allclose(metrics["score"][:2], 0, atol=1e-2)
    classes = small.train.classes[small.train.classes != IGNORE]
    present = np.unique(classes)
    want = 100 * (classes == 0).mean() / len(present)  # class 0 everywhere
    np.testing.assert_allclose(metrics["shown"][2], want, rtol=1e-5)
    # Examples that are padding do not count.
    padded = jax.tree.map(lambda a: np.concatenate([a, a[:2]]), small.train)
    more = tally(shared, own, problem.prepare(padded, None), jnp.arange(10) < 8)
    for a, b in zip(jax.tree.leaves(tallies), jax.tree.leaves(more), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_pretrained_weights_are_the_encoders_first_ones(small: SceneData):
    shapes = dilated_resnet(TINY).eval_shape()
    pretrained = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.5, np.float32), shapes)
    problem = scene_problem(small, TINY, inside=4, pretrained=pretrained)
    shared, own = jax.jit(jax.vmap(problem.init))(jax.random.split(jax.random.key(0), 2))
    assert jax.tree.structure(shared) == jax.tree.structure(shapes)
    assert all(np.all(np.asarray(leaf) == 0.5) for leaf in jax.tree.leaves(shared))
    assert own["semantic"].params["out"]["kernel"].shape == (2, 1, 1, 4, 19)


def test_a_scene_without_instances_has_no_instance_loss(small: SceneData):
    problem = scene_problem(small, TINY, inside=4)
    none = small.train._replace(has_instance=np.zeros_like(small.train.has_instance))
    shared, own = problem.init(jax.random.key(0))
    batch = problem.prepare(none, None)
    z, _ = jax.eval_shape(problem.encode, shared, batch)
    losses, _ = jax.jit(problem.decode)(own, jnp.ones((3, *z.shape)), batch)
    assert losses["instance"] == 0


def test_a_tiny_run_leaves_table_and_bars(small: SceneData, tmp_path: Path):
    problem = scene_problem(small, TINY, inside=4, eval_batch=4)
    args = ["--methods", "mgda_ub", "--epochs", "1", "--batch-size", "4"]
    config = parse(experiment.CityscapesConfig, "cityscapes", args).resolved()
    config = dataclasses.replace(config, runs_dir=tmp_path, log_points=2)
    facts = {"shown": "mean IoU and L1", "paper": experiment.PAPER}
    path = run_experiment(problem, config, "cityscapes", facts)
    text = write_report(path)
    assert "66.63 / 10.25 / 2.54" in text and "mean IoU %" in text
    for name in ("table.md", "tasks.png", "weights.png"):
        assert (path / name).stat().st_size > 0


def test_targets_are_computed_scene_by_scene():
    instances = np.array([[[0, 7, 7], [9, 9, 0]], [[7, 0, 0], [0, 0, 7]]], np.int32)
    shape = instances.shape
    annotated = Annotated(
        np.zeros((*shape, 3), np.uint8), np.zeros(shape, np.uint8), instances,
        np.zeros(shape, np.float32), np.zeros(shape, bool),
    )  # fmt: skip
    got = with_targets(annotated)
    np.testing.assert_allclose(got.offsets[0, 0, 1], [0.5, 0])
    np.testing.assert_allclose(got.offsets[0, 1, 1], [-0.5, 0])
    np.testing.assert_allclose(got.offsets[1, 0, 0], [1, 0.5])
    assert got.has_instance.tolist() == (instances > 0).tolist()
