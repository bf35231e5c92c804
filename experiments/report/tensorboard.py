"""TensorBoard event files of a run, from its metrics.jsonl.

python -m experiments.tensorboard runs/multimnist-digits
tensorboard --logdir runs/multimnist-digits
"""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


def summary_writer() -> Any:
    """tensorboardX's `SummaryWriter`; ExperimentError with the remedy where it is missing."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise ExperimentError(
            "TensorBoard's event files need tensorboardX: python -m pip install tensorboardX"
        ) from None
    return SummaryWriter


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
    writer_type = summary_writer()
    runs: dict[str, list[tuple[str, float, int]]] = {}
    with reading(path):
        tasks = read_json(path / CONFIG)["tasks"]
        for record in read_lines(path / METRICS):
            if method in (None, record["method"]):
                found = ((tag, float(x), int(record["step"])) for tag, x in scalars(record, tasks))
                runs.setdefault(_folder(record), []).extend(found)
    for name, numbers in runs.items():
        shutil.rmtree(path / name, ignore_errors=True)
        with writer_type(str(path / name)) as writer:
            for tag, value, step in numbers:
                writer.add_scalar(tag, value, step)
    return list(runs)


def scalars(record: dict[str, Any], tasks: list[str]) -> Iterator[tuple[str, float]]:
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
