"""Command-line options that every experiment shares, and how they are read."""

import contextlib
import dataclasses
import io
import itertools
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, Self, TypeVar

import jax
import numpy as np
import tyro

from experiments.errors import ExperimentError, program
from experiments.report.tensorboard import event_format
from experiments.trainer.parallel import join_processes

# None stands for a default that depends on the data set or machine; `resolved` puts it in.
TINY, HUGE = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
_PATTERNS = "[]*?\\"  # the checkpoint library looks for its folders by a pattern
_LONGEST_NAME = 200  # bytes; file systems take 255, and what lies beside a run has longer names
# Beyond these a count is a typing error: no memory holds so many runs, no clock so many epochs.
MOST = {"seeds": 10_000, "grid": 10_000, "epochs": 1_000_000, "log_points": 1_000_000}


def hint(text: str, metavar: str | None = None) -> Any:
    """For an annotation: what --help shows as the default."""
    return tyro.conf.arg(help_behavior_hint=f"(default: {text})", metavar=metavar)


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """Options of the trainer; every attribute is a flag.

    Attributes:
      methods: What to compare, separated by commas: single (one model per task), grid (static
        weights), all (single and every rule), or any rule of mgda_jax.weighting, with its options
        in parentheses, as in uniform,mgda_ub(normalization=l2). mgda is min_norm on exact
        gradients; the suffix _ub gives a gradient rule the gradients of the representation
        instead.
      seeds: How many seeds each method is trained with; the table shows mean and standard error.
      epochs: Passes over the training part.
      batch_size: Examples a step.
      learning_rate: One or several; of several, each method is reported with the one that is
        best on validation.
      tuned_by: Folder of a finished run: each method gets the learning rate it was reported with
        there, in place of --learning-rate.
      optimizer: SGD (with --momentum) or Adam with its own defaults.
      momentum: Momentum of SGD.
      decay_factor: The learning rate is multiplied by this every --decay-every.
      decay_every: Epochs between two decays; below 1, a fraction of all epochs.
      grid: Number of weight vectors that the method grid trains: (c, 1 - c) for two tasks, drawn
        from the simplex for more.
      head_scope: Whether the weights scale the heads' own gradients (all) or not (shared);
        rule: loss weightings do, gradient rules do not.
      runs_at_once: How many of a method's runs (seeds, learning rates, weight vectors) one step
        trains side by side; fewer take less memory.
      steps_per_dispatch: Steps that one call of the compiled program trains; of data that is
        streamed, as many batches wait on the device.
      log_points: Lines of metrics.jsonl an epoch and run; each is a mean over its part of the
        epoch.
      tensorboard: Also write what metrics.jsonl holds as TensorBoard event files, after each
        epoch, into the run's folder (needs tensorboardX).
      checkpoint_seconds: Save a checkpoint at the first end of an epoch after so many seconds.
      distributed: This is one process of several, which share a file system and divide each batch:
        found by JAX under Slurm, Open MPI or Kubernetes, else by JAX_COORDINATOR_ADDRESS,
        JAX_NUM_PROCESSES and JAX_PROCESS_ID in the environment.
      runs_dir: Folder of all runs.
      name: Folder of this run in --runs-dir.
      cache_dir: Folder of prepared data sets and compiled programs.
      overwrite: Train anew where --name holds a run already. Without it, a run with the same
        options continues where it stopped, and one with other options is refused.
    """

    methods: str = "single,uniform,uniform(reduction=mean),mgda,mgda_ub"
    seeds: int = 3
    epochs: int = 10
    batch_size: int = 32
    learning_rate: tuple[float, ...] = (0.05,)
    tuned_by: Annotated[Path | None, hint("none", metavar="PATH")] = None
    optimizer: Literal["sgd", "adam"] = "sgd"
    momentum: float = 0.9
    decay_factor: float = 0.5
    decay_every: float = 0.3
    grid: int = 9
    head_scope: Literal["rule", "shared", "all"] = "rule"
    runs_at_once: Annotated[int | None, hint("all", metavar="INT")] = None
    steps_per_dispatch: Annotated[
        int | None, hint("a whole epoch; of a stream 8", metavar="INT")
    ] = None
    log_points: int = 10
    tensorboard: tyro.conf.FlagCreatePairsOff[bool] = False
    checkpoint_seconds: float = 10.0
    distributed: tyro.conf.FlagCreatePairsOff[bool] = False
    runs_dir: Path = Path("runs")
    name: Annotated[str, hint("made of experiment and data set")] = ""
    cache_dir: Path = Path(".cache")
    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False

    def resolved(self) -> Self:
        """With a number in place of every None; experiments override it."""
        return self

    def check(self) -> None:
        """Raise ExperimentError naming the first flag whose value makes no sense."""
        for flag in ("seeds", "epochs", "batch_size", "grid", "log_points"):
            require_count(flag, getattr(self, flag))
        for flag in ("runs_at_once", "steps_per_dispatch"):
            if getattr(self, flag) is not None:
                require_count(flag, getattr(self, flag))
        check_rates(*self.learning_rate)
        _require(0 <= self.momentum < 1, "momentum", "a number in [0, 1)", self.momentum)
        for flag in ("decay_factor", "decay_every"):
            check_factor(flag, getattr(self, flag))
        seconds = self.checkpoint_seconds
        _require(0 <= seconds < math.inf, "checkpoint_seconds", "0 or more seconds", seconds)
        if self.tuned_by is not None and not self.tuned_by.is_dir():
            raise ExperimentError(f"--tuned-by: no such folder {self.tuned_by}")
        if self.tensorboard:
            event_format()
        check_name(self.name)
        check_path("runs_dir", self.runs_dir.absolute())


def check_name(name: str) -> None:
    """Raise ExperimentError where --name is not the name of one folder."""
    named = name == Path(name).name and name[:1] not in ("", ".", "-") and name == name.strip()
    short = len(os.fsencode(name)) <= _LONGEST_NAME
    _require(named and short, "name", "the name of one folder", _shortened(name))
    check_path("name", Path(name))


def check_path(flag: str, path: Path) -> None:
    """Raise ExperimentError for a folder whose checkpoints could not be read back."""
    text = str(path)
    plain = not set(text) & set(_PATTERNS) and text.isprintable()
    plain = plain and not any(part.endswith(":") for part in path.parts)
    expected = (
        f"a path of printable characters but {' '.join(_PATTERNS)}, no part of it with : last"
    )
    _require(plain, flag, expected, _shortened(text))


def _shortened(text: str) -> str:
    return repr(text) if len(text) <= 100 else f"{text[:97]!r}..."


def check_factor(flag: str, value: float) -> None:
    """Raise ExperimentError unless the value of a flag is more than 0 and a float32 holds it."""
    _require(TINY <= value <= HUGE, flag, "a positive number of float32", value)


def check_rates(*rates: float) -> None:
    """Raise ExperimentError unless there are learning rates, each once and more than 0."""
    _require(len(rates) > 0, "learning_rate", "one or more", "none")
    for rate in rates:
        _require(TINY <= rate <= HUGE, "learning_rate", "positive numbers of float32", rate)
    once = len(set(rates)) == len(rates)
    _require(once, "learning_rate", "each number once", " ".join(map(str, rates)))


@dataclasses.dataclass(frozen=True)
class FeedConfig(TrainingConfig):
    """Further options of an experiment whose official data may not fit in memory.

    Attributes:
      feed: How the official training part comes to the device: memory: whole, before the first
        step. grain: read from its files while it is trained on, in one order for all runs of a
        method; validation and test are read whole.
      workers: Processes that read for --feed grain; 0 for threads of this one.
    """

    feed: Literal["memory", "grain"] = "memory"
    workers: int = 0

    def check(self) -> None:
        """Also of the feed."""
        super().check()
        streams = self.feed == "grain"
        _require(0 <= self.workers <= 1024, "workers", "0 to 1024", self.workers)
        _require(streams or not self.workers, "workers", "0 without --feed grain", self.workers)


Value = TypeVar("Value")


def chosen(value: Value | None, default: Value) -> Value:
    """A flag's value, or the default where it was not given."""
    return default if value is None else value


def one_at_a_time(runs_at_once: int | None) -> int | None:
    """--runs-at-once by default where a CPU's cache holds one run's step at most."""
    return 1 if runs_at_once is None and jax.default_backend() == "cpu" else runs_at_once


class Options(Protocol):
    """What `run_main` asks of a configuration."""

    def resolved(self) -> Self: ...

    def check(self) -> None: ...


Config = TypeVar("Config", bound=Options)

# What a resumed run may change: where things lie and how often they are saved.
NOT_IDENTITY = (
    *("runs_dir", "name", "cache_dir", "data_dir", "overwrite", "checkpoint_seconds"),
    *("distributed", "steps_per_dispatch", "tensorboard", "workers"),
)


def identity(config: Any) -> dict[str, object]:
    """The options that decide a run's numbers, of a frozen dataclass, as JSON values."""
    fields = dataclasses.asdict(config)
    return {k: _as_json(v) for k, v in fields.items() if k not in NOT_IDENTITY}


def parse(config_type: type[Config], prog: str, args: list[str] | None = None) -> Config:
    """The options from the command line.

    Args:
      config_type: a frozen dataclass.
      prog: the program's name for help and errors.
      args: the arguments, by default `sys.argv[1:]`.

    Returns:
      The dataclass.

    Raises:
      ExperimentError: with one line for arguments that cannot be read.
      SystemExit: after --help.
    """
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(config_type, prog=prog, args=args)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
    raise ExperimentError(_one_line(errors.getvalue()))


def run_main(
    main: Callable[[Config], None],
    config_type: type[Config],
    prog: str,
    args: list[str] | None = None,
) -> None:
    """Call `main(config)`, and turn what went wrong into one line and an exit status.

    Args:
      main: takes the parsed and checked configuration.
      config_type: a dataclass such as `TrainingConfig`.
      prog: the program's name.
      args: the arguments, by default `sys.argv[1:]`.
    """
    with program(prog):
        config = parse(config_type, prog, args)
        if isinstance(config, TrainingConfig) and config.distributed:
            join_processes()
        config = config.resolved()
        config.check()
        main(config)


def _one_line(box: str) -> str:
    """What tyro draws as a box of several lines: a title, the message, suggestions, more help."""
    lines = [re.sub(r"^[│|]\s?|\s*[│|]$", "", line).strip() for line in box.splitlines()]
    bare = [line.strip("─╭╰╮╯-+") for line in lines[1:]]
    body = list(itertools.dropwhile(lambda line: not line, bare))
    message = " ".join(itertools.takewhile(bool, body))
    message = re.sub(
        r"no type matching \{None\}\|(.*) could be instantiated from", r"expected \1, got", message
    )
    flags = dict.fromkeys(re.findall(r"^(--\w[\w-]*)", "\n".join(lines), flags=re.MULTILINE))
    meant = f"; perhaps you meant {' or '.join(flags)}" if flags and "Unrecog" in message else ""
    return f"{message}{meant} (see --help)"


def require_count(flag: str, count: int) -> None:
    _require(count >= 1, flag, "at least 1", count)
    most = MOST.get(flag, np.iinfo(np.int32).max)
    _require(count <= most, flag, f"at most {most}", count)


def _require(condition: bool, flag: str, expected: str, got: object) -> None:
    if not condition:
        raise ExperimentError(f"--{flag.replace('_', '-')}: expected {expected}, got {got}")


def _as_json(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value
