"""TensorBoard event files of a run, from its metrics.jsonl.

python -m experiments.tensorboard runs/multimnist-digits
tensorboard --logdir runs/multimnist-digits
"""

import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from experiments.errors import FAILED, ExperimentError, program, reading
from experiments.trainer.run_folder import (
    CONFIG,
    EVENTS,
    METRICS,
    folder_name,
    read_json,
    read_lines,
)

_LABELS = ("method", "variant", "learning_rate", "seed", "split", "epoch", "step")


class Format(NamedTuple):
    """What tensorboardX has of the format: a writer that waits for the disk, and its records.

    Its `SummaryWriter` would write from a thread, two minutes late.
    """

    writer: Any
    event: Any
    scalar: Any


def event_format() -> Format:
    """ExperimentError with the remedy where tensorboardX is missing."""
    try:
        from tensorboardX import event_file_writer, summary
        from tensorboardX.proto import event_pb2
    except ImportError:
        raise ExperimentError(
            "TensorBoard's event files need tensorboardX: python -m pip install tensorboardX"
        ) from None
    records: Any = event_pb2
    return Format(event_file_writer.EventsWriter, records.Event, summary.scalar)


class EventFiles:
    """Event files that grow while runs train; a context manager that closes them.

    What an earlier attempt at a run wrote is replaced.
    """

    def __init__(self, path: Path, tasks: Sequence[str]):
        """Those in the folder of a run; ExperimentError where tensorboardX is missing."""
        self._path, self._tasks, self._format = path, tasks, event_format()
        self._open: dict[str, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        for writer in self._open.values():
            writer.close()

    def add(self, records: list[dict[str, Any]]) -> None:
        """Write records of metrics.jsonl, each into the files of its run, and out to the disk."""
        for record in records:
            name = _folder(record)
            if name not in self._open:
                shutil.rmtree(self._path / name, ignore_errors=True)
                (self._path / name).mkdir(parents=True)
                self._open[name] = self._format.writer(str(self._path / name / "events"))
            for tag, value in scalars(record, self._tasks):
                summary, step = self._format.scalar(tag, float(value)), int(record["step"])
                event = self._format.event(summary=summary, step=step, wall_time=time.time())
                self._open[name].write_event(event)
        for name in {_folder(record) for record in records}:
            self._open[name].flush()


def write_events(path: Path, method: str | None = None) -> list[str]:
    """Write event files of what was logged so far, in place of those there are.

    Args:
      path: the run's folder.
      method: whose files to write; None for those of all methods.

    Returns:
      The folders written, relative to that of the run: one for each method, variant,
      learning rate and seed.

    Raises:
      ExperimentError: for a folder that is no run, and where tensorboardX is missing.
    """
    event_format()
    runs: dict[str, list[dict[str, Any]]] = {}
    with reading(path):
        tasks = read_json(path / CONFIG)["tasks"]
        for record in read_lines(path / METRICS):
            if method in (None, record["method"]):
                runs.setdefault(_folder(record), []).append(record)
        for records in runs.values():
            with EventFiles(path, tasks) as files:
                files.add(records)
    return list(runs)


def scalars(record: dict[str, Any], tasks: Sequence[str]) -> Iterator[tuple[str, float]]:
    """The numbers of a record with their tags; matrices and what is not finite are left out.

    Examples:
      >>> record = {"split": "train", "step": 5, "loss": [1.0, None], "min_norm": 0.5}
      >>> list(scalars(record, ["left", "right"]))
      [('train_loss/left', 1.0), ('train_min_norm', 0.5)]
    """
    for key, value in record.items():
        if key in _LABELS:
            continue
        tag = f"{record['split']}_{key}"
        if isinstance(value, list):
            named = [(f"{tag}/{task}", item) for task, item in zip(tasks, value, strict=True)]
        else:
            named = [(tag, value)]
        yield from (pair for pair in named if isinstance(pair[1], int | float))


def _folder(record: dict[str, Any]) -> str:
    variant = f"{folder_name(record['variant'])}_" if record["variant"] else ""
    run = f"{variant}rate_{record['learning_rate']!r}_seed_{record['seed']}"
    return "/".join((EVENTS, folder_name(record["method"]), run))


def main(args: list[str]) -> None:
    """Write the event files of each run named."""
    with program("tensorboard"):
        if not args or args[0].startswith("-"):
            usage = "usage: python -m experiments.tensorboard runs/NAME ..."
            print(f"{usage}\n\n{str(__doc__).strip()}")
            sys.exit(0 if args and args[0] in ("-h", "--help") else FAILED)
        for path in map(Path, args):
            print(f"{path / EVENTS}: event files of {len(write_events(path))} runs")


if __name__ == "__main__":
    main(sys.argv[1:])
