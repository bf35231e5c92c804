"""All runs of one method: trained together, logged, checkpointed, selected on validation."""

import contextlib
import operator
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax
from tqdm import tqdm

from experiments.errors import ExperimentError, first_line
from experiments.report.dominance import REMEDY, dominance
from experiments.report.tensorboard import EventFiles
from experiments.trainer.checkpoints import Checkpoints, shapes
from experiments.trainer.config import TrainingConfig
from experiments.trainer.feed import Feed, MemoryFeed, StreamFeed
from experiments.trainer.parallel import Devices, leads
from experiments.trainer.problem import num_examples
from experiments.trainer.run_folder import (
    CHECKPOINTS,
    METRICS,
    TIMINGS,
    RunFolder,
    read_lines,
)
from experiments.trainer.run_plan import REPORTED, Label, results, stacked_runs, title
from experiments.trainer.stream import Stream
from experiments.trainer.training import Run, Trainer

PyTree = Any
_STREAMED = 8  # steps a dispatch of a stream: its batches are on the device up to three times


class Dispatch(NamedTuple):
    """A part of every epoch that is one call of a compiled program.

    Attributes:
      first: () int32 on the device, the first of its steps, counted from 0 in the epoch.
      steps: how many.
      program: `program(state, runs, data, epoch, first) -> (state, log)`.
    """

    first: jax.Array
    steps: int
    program: Any


class MethodRun:
    """All runs of one method: seeds × learning rates × variants, in one compiled program."""

    def __init__(
        self,
        trainer: Trainer,
        labels: list[Label],
        config: TrainingConfig,
        folder: RunFolder,
        devices: Devices,
        bar: tqdm,
    ):
        self.trainer, self.config, self.folder, self.bar = trainer, config, folder, bar
        self.devices, self.problem, self.method = devices, trainer.problem, trainer.method
        self.labels, self._warned = labels, False
        self.runs = devices.replicate(stacked_runs(self.method, self.labels))
        # It runs once: optimised code would cost seconds to compile and save none.
        options = {"xla_backend_optimization_level": "0"} if jax.default_backend() == "cpu" else {}
        self._init = jax.jit(
            jax.vmap(trainer.init), compiler_options=options, out_shardings=devices.replicated
        )
        self._train = jax.jit(
            self._train_steps,
            static_argnums=5,
            donate_argnums=0,
            out_shardings=devices.replicated,
        )
        self._tally = jax.jit(
            jax.vmap(trainer.tally, in_axes=(0, None, None)), out_shardings=devices.replicated
        )
        self._metrics = jax.jit(jax.vmap(self.problem.metrics), out_shardings=devices.replicated)
        self._select = jax.jit(
            jax.vmap(trainer.select, in_axes=(0, 0, 0, None)),
            donate_argnums=0,
            out_shardings=devices.replicated,
        )

    def _train_steps(
        self,
        state: PyTree,
        runs: Run,
        data: PyTree,
        epoch: jax.Array,
        first: jax.Array,
        steps: int,
    ) -> Any:
        """Some steps of every run, as many runs at once as the configuration says."""

        def one(state_and_run: tuple[PyTree, Run]) -> Any:
            return self.trainer.train_steps(*state_and_run, data, epoch, first, steps)

        at_once = self.config.runs_at_once
        if at_once is None or at_once >= len(self.labels):
            return jax.vmap(one)((state, runs))
        return lax.map(one, (state, runs), batch_size=None if at_once == 1 else at_once)

    def train(self) -> dict[str, Any]:
        """Train from the last checkpoint to the end; the entry of results.json."""
        config, method = self.config, self.method
        root = self.folder.path / CHECKPOINTS
        saved = Checkpoints.of_method(root, method.spec, config.checkpoint_seconds)
        with saved as checkpoints:
            with self._method_fits():
                state = self._init(self.runs)
            state, start = checkpoints.restore(shapes(state)) or (state, 0)
            self.bar.update(start)
            self.folder.rewind(method.spec, start)
            failed = jax.device_get(state.failed_step) >= 0
            with self._feed(start) as feed, self._event_files() as events:
                dispatches = self._compile(state, feed, start)
                for epoch in range(start, config.epochs):
                    started = time.perf_counter()
                    with jax.transfer_guard("disallow"):  # but for those asked for
                        state, log = self._train_epoch(state, feed, dispatches, epoch)
                        trained = time.perf_counter()
                        metrics = self.evaluate(state.params, "validation")
                        scored = metrics[self.problem.score], np.int32(epoch + 1)
                        scores, number = self.devices.replicate(scored)
                        state = self._select(state, self.runs, scores, number)
                    failed = self._report_failures(state, failed)
                    records = self._log(epoch, log, metrics, failed)
                    if events is not None:
                        events.add(records)
                    self._warn(epoch, log, failed)
                    best = np.where(failed, -np.inf, jax.device_get(state.best_score))
                    self._time(
                        epoch + 1,
                        train_seconds=trained - started,
                        evaluation_seconds=time.perf_counter() - trained,
                    )
                    score = float(np.mean(best[~failed]))
                    checkpoints.save(epoch + 1, state, score, last=epoch + 1 == config.epochs)
                    self.bar.set_postfix_str(f"validation {score:.2f}", refresh=False)
                    self.bar.update()
            parts = {part: self.evaluate(state.best_params, part) for part in REPORTED}
            outcome = results(method, self.labels, jax.device_get(state), parts)
            self._show(state, outcome)
            return {**outcome, "steps_per_epoch": self.trainer.steps_per_epoch}

    @contextlib.contextmanager
    def _method_fits(self) -> Iterator[None]:
        """What a rule finds wrong once it sees the model, as one line."""
        try:
            yield
        except ValueError as error:
            raise ExperimentError(f"--methods: {self.method.spec}: {first_line(error)}") from error

    def _feed(self, epoch: int) -> Any:
        """What trains from an epoch on, closed at the end."""
        trainer, train = self.trainer, self.problem.data["train"]
        if not isinstance(train, Stream):
            return contextlib.closing(MemoryFeed(train, self.devices))
        batch_size, step = trainer.recipe.batch_size, epoch * trainer.steps_per_epoch
        feed = StreamFeed(train, trainer.reads, batch_size, step, self.devices)
        return contextlib.closing(feed)

    def _compile(self, state: PyTree, feed: Feed, epoch: int) -> list[Dispatch]:
        """The dispatches of an epoch: the last is shorter where its steps do not divide."""
        total, most = self.trainer.steps_per_epoch, self.config.steps_per_dispatch
        if most is None:
            most = _STREAMED if isinstance(feed, StreamFeed) else total
        firsts = range(0, total, most)
        lengths = [min(most, total - first) for first in firsts]
        zero = self.devices.replicate(np.int32(0))
        started = time.perf_counter()
        programs = {}
        for steps in sorted(set(lengths)):
            like = feed.like(steps)
            with self._method_fits():
                lowered = self._train.lower(state, self.runs, like, zero, zero, steps)
            programs[steps] = lowered.compile()
        self._time(epoch, compile_seconds=time.perf_counter() - started)
        places = self.devices.replicate([np.int32(first) for first in firsts])
        return [
            Dispatch(first, steps, programs[steps])
            for first, steps in zip(places, lengths, strict=True)
        ]

    def _train_epoch(
        self, state: PyTree, feed: Feed, dispatches: list[Dispatch], epoch: int
    ) -> tuple[PyTree, dict[str, np.ndarray]]:
        """One epoch of every run, and its log with leaves (runs, steps, ...)."""
        number, logs = self.devices.replicate(np.int32(epoch)), []
        for first, steps, program in dispatches:
            data = feed.take(steps)  # read and moved while the dispatch before trains
            if len(logs) > 1:
                jax.block_until_ready(logs[-2])  # else all of an epoch could wait on the device
            state, log = program(state, self.runs, data, number, first)
            logs.append(log)
        logs = jax.device_get(logs)
        return state, jax.tree.map(lambda *a: np.concatenate(a, axis=1), *logs)

    def evaluate(self, params: PyTree, part: str) -> dict[str, np.ndarray]:
        """The problem's metrics on a part of the data, (runs, T) each."""
        data = self.problem.data[part]
        size = self.devices.round_up(min(self.problem.eval_batch, num_examples(data)))
        total = None
        for first in range(0, num_examples(data), size):
            chunk = jax.tree.map(lambda a, i=first: _padded(a[i : i + size], size), data)
            valid = np.arange(first, first + size) < num_examples(data)
            tally = self._tally(params, *self.devices.replicate((chunk, valid)))
            total = tally if total is None else jax.tree.map(operator.add, total, tally)
        return jax.device_get(dict(self._metrics(total)))

    def _show(self, state: PyTree, outcome: dict[str, Any]) -> None:
        """Keep what pictures need of the method's first reported run."""
        reported = [r for r, run in enumerate(outcome["runs"]) if "test" in run]
        if self.problem.show is None or not reported:
            return
        params = jax.tree.map(lambda a: a[reported[0]], jax.device_get(state.best_params))
        shown = jax.device_get(jax.jit(self.problem.show)(*params))
        self.folder.keep(self.method.spec, shown)

    def _report_failures(self, state: PyTree, failed_before: np.ndarray) -> np.ndarray:
        steps, tasks = jax.device_get((state.failed_step, state.failed_task))
        failed, names = steps >= 0, (*map("the loss of task '{}'".format, self.problem.tasks),)
        for i in np.flatnonzero(failed & ~failed_before):
            what = (*names, "a gradient")[tasks[i]]
            line = f"{title(self.labels[i])}: {what} is not finite at step {steps[i]}"
            if failed.all():
                raise ExperimentError(
                    f"{line}; no run of this method is left, its last good checkpoint stays"
                )
            if leads():
                self.bar.write(f"{line}; this run stops, the others go on", file=sys.stderr)
        return failed

    def _warn(self, epoch: int, log: Any, failed: np.ndarray) -> None:
        """Say it once where one task holds nearly all the weight, its gradient far below."""
        for r in np.flatnonzero(~failed).tolist() if "norm" in log else ():
            if self._warned or not leads():
                return
            found = dominance({key: value[r].mean(axis=0) for key, value in log.items()})
            if found is not None:
                self._warned = True
                said = (
                    f"{title(self.labels[r])}: epoch {epoch + 1}: {found.text(self.problem.tasks)}"
                )
                self.bar.write(
                    f"{said}; the others hardly train; remedy: {REMEDY}", file=sys.stderr
                )

    def _event_files(self) -> contextlib.AbstractContextManager[EventFiles | None]:
        """TensorBoard's, with the epochs before this attempt; None where none are asked for."""
        if not self.config.tensorboard or not leads():
            return contextlib.nullcontext()
        files = EventFiles(self.folder.path, self.problem.tasks)
        lines = read_lines(self.folder.path / METRICS)
        files.add([record for record in lines if record["method"] == self.method.spec])
        return files

    def _log(
        self, epoch: int, log: Any, metrics: Mapping[str, Any], failed: np.ndarray
    ) -> list[dict[str, Any]]:
        """Append an epoch's records to metrics.jsonl; the records."""
        steps = self.trainer.steps_per_epoch
        windows = np.array_split(np.arange(steps), min(self.config.log_points, steps))
        records = []
        for r in np.flatnonzero(~failed).tolist():
            for window in windows:
                mean = {key: value[r, window].mean(axis=0) for key, value in log.items()}
                records.append(self._record(r, "train", epoch + 1, window[-1] + 1, mean))
            last = {key: value[r] for key, value in metrics.items()}
            records.append(self._record(r, "validation", epoch + 1, steps, last))
        self.folder.log(records)
        return records

    def _record(
        self, run: int, split: str, epoch: int, step: int, values: dict[str, np.ndarray]
    ) -> dict[str, Any]:
        step = (epoch - 1) * self.trainer.steps_per_epoch + int(step)
        numbers = {key: np.asarray(value).tolist() for key, value in values.items()}
        return {**self.labels[run], "split": split, "epoch": epoch, "step": step, **numbers}

    def _time(self, epoch: int, **seconds: float) -> None:
        shared = {"method": self.method.spec, "epoch": epoch, "runs": len(self.labels)}
        self.folder.log([{**shared, **seconds}], TIMINGS)


def _padded(rows: np.ndarray, size: int) -> np.ndarray:
    missing = size - len(rows)
    return np.pad(rows, [(0, missing)] + [(0, 0)] * (rows.ndim - 1)) if missing else rows
