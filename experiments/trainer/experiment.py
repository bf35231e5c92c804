"""Train every method of an experiment, resumably, and leave all that a report needs."""

import os
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from experiments.errors import ExperimentError, reading
from experiments.report.happened import happened
from experiments.report.reading import reported_records
from experiments.report.tensorboard import write_events
from experiments.report.writing import write_report
from experiments.trainer.config import TrainingConfig, identity
from experiments.trainer.method_run import MethodRun
from experiments.trainer.methods import parse_methods
from experiments.trainer.parallel import Devices, leads
from experiments.trainer.problem import Problem, num_examples
from experiments.trainer.run_folder import METRICS, RunFolder, read_lines
from experiments.trainer.run_plan import planned_runs
from experiments.trainer.training import Recipe, Trainer


def run_and_report(
    problem: Problem, config: TrainingConfig, experiment: str, facts: Mapping[str, Any]
) -> None:
    """`run_experiment`, then write its table and figures and print the table."""
    path = run_experiment(problem, config, experiment, facts)
    if leads():
        print(write_report(path))


def run_experiment(
    problem: Problem, config: TrainingConfig, experiment: str, facts: Mapping[str, Any]
) -> Path:
    """Train all methods of a configuration, or go on with what was interrupted.

    Args:
      problem: model and data.
      config: the checked options.
      experiment: the experiment's name.
      facts: further entries of config.json, for the report.

    Returns:
      The run's folder, with config.json, metrics.jsonl, results.json and timings.jsonl.

    Raises:
      ExperimentError: for a folder that holds another run, a batch that does not fit, and
        a method whose every run met a loss that is not finite.
    """
    _check_sizes(problem, config)
    steps_per_epoch = num_examples(problem.data["train"]) // config.batch_size
    methods = parse_methods(config.methods, problem.tasks, config.grid, steps_per_epoch)
    for method in methods:
        if method.mode == "representation" and not problem.common:
            raise ExperimentError(
                f"--methods: {method.spec} needs one representation that all tasks read, and this "
                "model has one per task: their gradients never meet; expected a method without _ub"
            )
    devices = Devices(config.batch_size)
    path = config.runs_dir / config.name
    if config.tuned_by is not None and os.path.realpath(config.tuned_by) == os.path.realpath(path):
        raise ExperimentError(f"--tuned-by: expected another run than {path} itself")
    plans = [(method, planned_runs(method, config)) for method in methods]
    description = describe(problem, config, experiment, facts)
    interval = 0.1 if sys.stderr.isatty() else 10.0  # a log file wants few lines
    total = len(methods) * config.epochs
    with (
        RunFolder(path, description, config.overwrite) as folder,
        tqdm(
            total=total, unit="epoch", dynamic_ncols=True, mininterval=interval, disable=not leads()
        ) as bar,
    ):
        done = folder.results()
        for method, labels in plans:
            bar.set_description(method.spec, refresh=False)
            if method.spec in done:
                bar.update(config.epochs)
                if config.tensorboard and leads():
                    write_events(path, method.spec)
            else:
                trainer = Trainer(problem, method, _recipe(config), devices.split)
                result = MethodRun(trainer, labels, config, folder, devices, bar).train()
                folder.add_result(
                    method.spec, {**result, "happened": _happened(result, trainer, path)}
                )
        folder.finish()
    return path


def _happened(result: dict[str, Any], trainer: Trainer, path: Path) -> list[str]:
    if not leads():
        return []
    spec = trainer.method.spec
    with reading(path / METRICS):
        records = reported_records(read_lines(path / METRICS), spec, result["selected"])
        return happened(spec, result, records, trainer.problem.tasks)


def _recipe(config: TrainingConfig) -> Recipe:
    every = config.decay_every if config.decay_every >= 1 else config.decay_every * config.epochs

    def optimizer(learning_rate: jax.Array) -> optax.GradientTransformation:
        if config.optimizer == "adam":
            return optax.adam(learning_rate)
        return optax.sgd(learning_rate, momentum=config.momentum)

    return Recipe(
        batch_size=config.batch_size,
        optimizer=optimizer,
        decay=lambda epoch: config.decay_factor ** jnp.floor(epoch / every),
        scope=None if config.head_scope == "rule" else config.head_scope,
    )


def _check_sizes(problem: Problem, config: TrainingConfig) -> None:
    size = num_examples(problem.data["train"])
    if config.batch_size > size:
        raise ExperimentError(
            f"--batch-size: expected at most the {size} training examples, got {config.batch_size}"
        )
    steps = size // config.batch_size * config.epochs
    if steps > np.iinfo(np.int32).max:
        raise ExperimentError(f"--epochs: {config.epochs} are {steps} steps, too many")


def describe(
    problem: Problem, config: Any, experiment: str, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """What goes into config.json: options (a frozen dataclass), data, versions, devices."""
    libraries = ("jax", "jaxlib", "optax", "flax", "orbax-checkpoint", "numpy")
    return {
        "experiment": experiment,
        "config": identity(config),
        "tasks": list(problem.tasks),
        "score": problem.score,
        "score_label": problem.score_label,
        "examples": {name: num_examples(data) for name, data in problem.data.items()},
        "command": " ".join([f"python -m experiments.{experiment}", *sys.argv[1:]]),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in libraries},
        "devices": [device.device_kind for device in jax.devices()],
        **facts,
    }
