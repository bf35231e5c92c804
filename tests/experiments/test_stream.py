"""Data that is read while it is trained on: its order, its resumption, the chunks it comes in."""

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.celeba import command as celeba
from experiments.celeba.builder import load_celeba, stream_celeba
from experiments.cityscapes.builder import load_cityscapes, stream_cityscapes
from experiments.errors import ExperimentError
from experiments.trainer.config import TrainingConfig, run_main
from experiments.trainer.experiment import run_experiment
from experiments.trainer.feed import StreamFeed
from experiments.trainer.parallel import Devices
from experiments.trainer.run_folder import METRICS, RESULTS, TIMINGS, read_lines
from experiments.trainer.step_inputs import plan_epoch
from experiments.trainer.stream import Stream
from tests.experiments.official_scenes import write_celeba, write_cityscapes
from tests.experiments.test_experiment import interrupt_after
from tests.experiments.test_training import make_run, make_trainer
from tests.experiments.tiny_problem import tiny_problem

EPS = float(np.finfo(np.float32).eps)
QUICK = {"xla_backend_optimization_level": "0"}  # compilation is all that these tests take time for


class Rows:
    """Random access to the rows of arrays: the least that a source must be."""

    def __init__(self, data: Any):
        self.data = data

    def __len__(self) -> int:
        return len(jax.tree.leaves(self.data)[0])

    def __getitem__(self, index: int) -> Any:
        return jax.tree.map(lambda a: a[index], self.data)


def numbers(batches: Any, count: int) -> np.ndarray:
    """The examples' numbers in so many batches, (count, batch)."""
    try:
        return np.array([np.array(next(batches)["number"]) for _ in range(count)])
    finally:
        batches.close()


COUNTED = Stream(Rows({"number": np.arange(50)}))


def test_each_epoch_is_a_new_permutation_without_its_incomplete_batch():
    epochs = numbers(COUNTED.batches(8, 0), 18).reshape(3, 48)
    for epoch in epochs:
        assert len(np.unique(epoch)) == 48 and 0 <= epoch.min() and epoch.max() < 50
        assert not np.array_equal(epoch, np.sort(epoch))
    assert len({tuple(epoch) for epoch in epochs}) == 3
    # Of 50 examples another two are dropped each time.
    assert len({tuple(np.setdiff1d(np.arange(50), epoch)) for epoch in epochs}) > 1


@pytest.mark.parametrize("first", [1, 6, 13])
def test_reading_from_any_step_continues_the_same_order(first: int):
    whole = numbers(COUNTED.batches(8, 0), 18)
    np.testing.assert_array_equal(numbers(COUNTED.batches(8, first), 18 - first), whole[first:])


def test_seeds_and_orders_differ():
    orders = [numbers(COUNTED.batches(8, 0, order), 6) for order in (0, 1, 2)]
    orders.append(numbers(dataclasses.replace(COUNTED, seed=1).batches(8, 0), 6))
    for i, one in enumerate(orders):
        for other in orders[:i]:
            assert np.mean(one == other) < 0.2


def negated(example: dict[str, Any]) -> dict[str, Any]:
    return {"number": -example["number"]}


def test_worker_processes_deliver_the_same_batches():
    stream = dataclasses.replace(COUNTED, transform=negated)
    here = numbers(stream.batches(8, 4), 9)
    elsewhere = numbers(dataclasses.replace(stream, workers=1).batches(8, 4), 9)
    np.testing.assert_array_equal(elsewhere, here)
    np.testing.assert_array_equal(-here, numbers(COUNTED.batches(8, 4), 9))


class AsPlanned(Stream):
    """The very batches that a run of data in memory plans for itself."""

    def batches(self, batch_size: int, first: int, order: int = 0) -> Any:
        key = jax.random.split(jax.random.key(0), 4)[1]
        for step in itertools.count(first):
            epoch, i = divmod(step, len(self) // batch_size)
            plan = plan_epoch(key, jnp.int32(epoch), len(self), batch_size)
            rows = plan.rows[i] if order == 0 else plan.independent[i, order - 1]
            yield self.source[np.asarray(rows)]


@pytest.mark.parametrize("method", ["famo", "modo"])
def test_chunks_of_a_stream_train_as_the_same_batches_in_memory_do(method: str):
    """Of a rule that reads the previous batch and of one that reads two independent ones."""
    problem, halves = tiny_problem(), ((0, 3), (3, 3))
    memory = make_trainer(method, problem, batch_size=8)
    stream = AsPlanned(Rows(problem.data["train"]))
    streamed = make_trainer(method, problem.training_on(stream), batch_size=8)
    run = make_run()
    state = jax.jit(memory.init)(run)
    epoch_of = jax.jit(memory.train_epoch, compiler_options=QUICK)
    steps_of = jax.jit(streamed.train_steps, static_argnums=5, compiler_options=QUICK)
    for start in (0, 1):  # from the beginning, where no batch is previous, and resumed
        want, log = epoch_of(state, run, problem.data["train"], jnp.int32(start))
        feed, logs, got = StreamFeed(stream, memory.reads, 8, 6 * start, Devices(8)), [], state
        for first, steps in halves:
            chunk = feed.take(steps)
            shapes = jax.tree.map(lambda a: (a.shape, a.dtype), (chunk, feed.like(steps)))
            assert shapes[0] == shapes[1]
            got, some = steps_of(got, run, chunk, jnp.int32(start), jnp.int32(first), steps)
            logs.append(some)
        feed.close()
        logged = jax.tree.map(lambda *a: np.concatenate(a), *logs)
        chex.assert_trees_all_close((got, logged), (want, log), rtol=0, atol=100 * EPS)
        state = want


def run(runs_dir: Path, stream: bool, **changes: Any) -> Path:
    problem = tiny_problem()
    if stream:
        problem = problem.training_on(Stream(Rows(problem.data["train"])))
    options: dict[str, Any] = {
        "methods": "famo",
        "seeds": 2,
        "epochs": 3,
        "batch_size": 8,
        "learning_rate": (0.1,),
        "checkpoint_seconds": 0.0,
        "log_points": 2,
        "runs_dir": runs_dir,
        "name": "run",
    }
    config = TrainingConfig(**{**options, **changes})
    config.check()
    return run_experiment(problem, config, "tiny", {})


def test_a_streamed_run_trains_and_an_interrupted_one_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = run(tmp_path / "whole", stream=True, steps_per_dispatch=3)
    losses = [np.mean(r["loss"]) for r in read_lines(whole / METRICS) if "loss" in r]
    assert len(losses) == 2 * 3 * 2 and losses[-1] < losses[0]
    with monkeypatch.context() as patch:
        interrupt_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "cut", stream=True, steps_per_dispatch=3)
    cut = run(tmp_path / "cut", stream=True, steps_per_dispatch=3)
    assert [r["epoch"] for r in read_lines(cut / TIMINGS) if "compile_seconds" in r] == [0, 1]
    for name in (RESULTS, METRICS):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()


def test_numbers_do_not_depend_on_the_steps_of_a_dispatch():
    trainer, run = make_trainer("uniform", batch_size=8), make_run()
    data, epoch = trainer.problem.data["train"], jnp.int32(1)
    state = jax.jit(trainer.init)(run)
    steps_of = jax.jit(trainer.train_steps, static_argnums=5, compiler_options=QUICK)
    want = steps_of(state, run, data, epoch, jnp.int32(0), 6)
    got, first = steps_of(state, run, data, epoch, jnp.int32(0), 3)
    got, second = steps_of(got, run, data, epoch, jnp.int32(3), 3)
    log = jax.tree.map(lambda *a: np.concatenate(a), first, second)
    chex.assert_trees_all_close((got, log), want, rtol=0, atol=10 * EPS)


def test_a_dispatch_of_no_steps_is_refused(tmp_path: Path):
    with pytest.raises(ExperimentError, match="--steps-per-dispatch: expected at least 1, got 0"):
        run(tmp_path, stream=False, steps_per_dispatch=0)


def test_a_transfer_that_nobody_asked_for_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    plain = StreamFeed.take

    def careless(self: StreamFeed, steps: int) -> Any:
        return jax.tree.map(np.asarray, jax.device_get(plain(self, steps)))

    monkeypatch.setattr(StreamFeed, "take", careless)
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        run(tmp_path, stream=True, methods="uniform")


def in_order(split: Any, stream: Stream) -> Any:
    """The stream's examples stacked in the order of the split, matched by their images."""
    batches = stream.batches(len(stream), 0)
    try:
        got = jax.tree.map(np.array, next(batches))
    finally:
        batches.close()
    known = [image.tobytes() for image in split.images]
    order = np.argsort([known.index(image.tobytes()) for image in got.images])
    return jax.tree.map(lambda a: a[order], got)


@pytest.mark.parametrize("workers", [0, 1])
def test_official_faces_stream_as_they_load(tmp_path: Path, workers: int):
    write_celeba(tmp_path / "files", (5, 2, 2))
    data = load_celeba(tmp_path / "cache", tmp_path / "files")
    got = in_order(data.train, stream_celeba(tmp_path / "cache", workers))
    jax.tree.map(np.testing.assert_array_equal, got, data.train)
    assert jax.tree.map(lambda a: a.dtype, got) == jax.tree.map(lambda a: a.dtype, data.train)
    sample = load_celeba(tmp_path / "cache", most_train=3)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[:3]), sample.train, data.train)
    jax.tree.map(np.testing.assert_array_equal, sample.test, data.test)


def test_official_scenes_stream_with_their_targets(tmp_path: Path):
    write_cityscapes(tmp_path / "files")
    data = load_cityscapes(tmp_path / "cache", tmp_path / "files")
    stream = stream_cityscapes(tmp_path / "cache", 0)
    got = in_order(data.train, stream)
    jax.tree.map(np.testing.assert_array_equal, got, data.train)
    like = stream.shapes(1, len(stream))
    want = jax.tree.map(lambda a: jax.ShapeDtypeStruct((1, *a.shape), a.dtype), data.train)
    assert like == want
    sample = load_cityscapes(tmp_path / "cache", tmp_path / "files", most_train=2)
    assert len(sample.train.images) == 2 and len(sample.test.images) == len(data.test.images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--feed grain", "--feed: --dataset synthetic is rendered"),
        ("--feed grain --workers -1", "--workers: expected 0 to 1024, got -1"),
        ("--workers 2", "--workers: expected 0 without --feed grain, got 2"),
    ],
)
def test_feeds_that_make_no_sense_are_one_line(
    options: str, message: str, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as info:
        run_main(celeba.load, celeba.CelebaConfig, "celeba", options.split())
    assert info.value.code == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
