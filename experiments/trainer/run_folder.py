"""What a run leaves on disk: its configuration, metrics, results and timings."""

import contextlib
import hashlib
import itertools
import json
import math
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from experiments.errors import ExperimentError
from experiments.trainer.parallel import as_the_leader_says, leads, wait_for_all
from experiments.trainer.run_lock import release_lock, take_lock

CONFIG, METRICS, RESULTS, TIMINGS = "config.json", "metrics.jsonl", "results.json", "timings.jsonl"
CHECKPOINTS, EVENTS, TABLE, SCORES = "checkpoints", "tensorboard", "table.md", "scores.csv"
SHOWN = "shown"  # what pictures need of trained models
PICTURES = tuple(
    f"{name}.png"
    for name in (
        *("accuracy_profile", "attributes", "tasks", "curves", "weights", "cosines"),
        *("directions", "solutions", "conflict", "samples", "front"),
    )
)
_FILES = (CONFIG, METRICS, RESULTS, TIMINGS, TABLE, SCORES)
# All that a run, its report and its event files ever write into the folder.
WRITTEN = (*_FILES, *(f"{name}.tmp" for name in _FILES), *PICTURES, CHECKPOINTS, EVENTS, SHOWN)


class RunFolder:
    """The folder runs/<name>/ of one run; of several processes, all read and one writes.

    A context manager: inside it no other run may use the folder. A run that is overwritten lies
    beside it, as runs/.<name>.replaced-1, until `finish`; nothing but what a run wrote is moved
    or deleted.

    Attributes:
      path: the folder.
      description: the content of config.json.
    """

    def __init__(self, path: Path, description: dict[str, Any], overwrite: bool):
        """Name the folder; nothing is touched yet.

        Args:
          path: the folder.
          description: what goes into config.json; its "experiment" and "config" identify the run.
          overwrite: whether to train anew where there is a run.
        """
        self.path, self.description, self._overwrite = path, description, overwrite
        self._writes, self._lock = leads(), None
        self._home = Path(os.path.realpath(path))  # beside which the lock and what is replaced lie

    def __enter__(self) -> Self:
        """Create the folder, or open it to continue the run it holds.

        Raises:
          ExperimentError: when the folder holds another run, or something else, or another
            process is at it.
        """
        if self._writes:
            self._home.parent.mkdir(parents=True, exist_ok=True)
            self._lock = take_lock(self._home.with_name(f".{self._home.name}.lock"))
        if not as_the_leader_says(self._lock is not None):
            raise ExperimentError(f"{self.path}: another process is training in this folder")
        try:
            self._open()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            release_lock(self._lock)
            self._lock = None

    def _open(self) -> None:
        holds_run = self._holds_run()
        anew = holds_run and self._overwrite
        if holds_run:
            changed = self._changed(read_json(self.path / CONFIG))
            # An overwriting that was interrupted goes on: what it replaces is still there.
            anew = anew and bool(changed or not self._replaced())
            if changed and not anew:
                raise ExperimentError(
                    f"{self.path}: holds a run with {changed}; choose another "
                    "--name, or --overwrite it"
                )
        wait_for_all("run folder checked")
        if self._writes:
            if anew:
                self._home.rename(self._unused())
            self._home.mkdir(exist_ok=True)
            for folder in self._replaced():
                _move_what_is_not_a_runs(folder, self._home)
            if not (self.path / CONFIG).exists():
                write_json(self.path / CONFIG, self.description)
        wait_for_all("run folder made")

    def finish(self) -> None:
        """Delete the run that this one replaces, now that this one stands."""
        if self._writes:
            for folder in self._replaced():
                delete_run(folder)

    def _replaced(self) -> list[Path]:
        before = f".{self._home.name}.replaced-"
        there = self._home.parent.iterdir() if self._home.parent.is_dir() else ()
        return [path for path in there if path.name.startswith(before)]

    def _unused(self) -> Path:
        names = (
            self._home.with_name(f".{self._home.name}.replaced-{i}") for i in itertools.count(1)
        )
        return next(path for path in names if not path.exists())

    def _holds_run(self) -> bool:
        """Whether there is a run to continue or to replace; ExperimentError for anything else."""
        if not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir())):
            return False
        if not (self.path / CONFIG).is_file():
            if self.path.is_dir() and self._replaced():  # stopped between two moves
                return False
            raise ExperimentError(f"{self.path}: exists and is not a run; choose another --name")
        check_run(self.path)
        return True

    def _changed(self, found: dict[str, Any]) -> str:
        """What of the run in the folder is not as in this one, in words; "" where it is this."""
        mine = {"experiment": self.description["experiment"], **self.description["config"]}
        other = {"experiment": found["experiment"], **found["config"]}
        changed = [k for k in sorted(mine | other) if mine.get(k) != other.get(k)]
        if not changed:
            return ""
        key = changed[0]
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        return f"{key} {other.get(key)!r}, not {mine.get(key)!r}{more}"

    def results(self) -> dict[str, Any]:
        """The finished methods' results by method."""
        path = self.path / RESULTS
        return read_json(path) if path.exists() else {}

    def add_result(self, method: str, result: dict[str, Any]) -> None:
        """Record a finished method."""
        if self._writes:
            write_json(self.path / RESULTS, {**self.results(), method: result})

    def keep(self, method: str, arrays: Mapping[str, Any]) -> None:
        """Write arrays of a method, which `read_shown` finds."""
        if not self._writes:
            return
        path = shown_path(self.path, method)
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_name(f"{path.name}.tmp")
        with open(temporary, "wb") as file:
            np.savez_compressed(file, **arrays)
        os.replace(temporary, path)

    def rewind(self, method: str, epoch: int) -> None:
        """Forget what was logged of a method after an epoch, before it is trained again."""
        if not self._writes:
            return
        for name in (METRICS, TIMINGS):
            kept = [
                record
                for record in read_lines(self.path / name)
                if record["method"] != method or record["epoch"] <= epoch
            ]
            write_text(self.path / name, "".join(_line(record) for record in kept))

    def log(self, records: list[dict[str, Any]], name: str = METRICS) -> None:
        """Append records, one JSON object a line."""
        if not self._writes:
            return
        with open(self.path / name, "a", encoding="utf-8") as file:
            file.write("".join(_line(record) for record in records))


def check_run(path: Path) -> None:
    """Raise ExperimentError where a folder's config.json is not one that a run wrote."""
    found = read_json(path / CONFIG)
    if not isinstance(found.get("experiment"), str) or not isinstance(found.get("config"), dict):
        raise ExperimentError(f"{path / CONFIG}: not as a run wrote it; choose another --name")


def shown_path(folder: Path, method: str) -> Path:
    """Where a method's arrays for pictures lie."""
    return folder / SHOWN / f"{folder_name(method)}.npz"


def delete_run(path: Path) -> None:
    """Delete what a run wrote into a folder, and the folder where nothing else is in it."""
    for name in WRITTEN:
        if (path / name).is_dir():
            shutil.rmtree(path / name)
        else:
            (path / name).unlink(missing_ok=True)
    if not any(path.iterdir()):
        path.rmdir()


def _move_what_is_not_a_runs(folder: Path, to: Path) -> None:
    for path in folder.iterdir():
        if path.name not in WRITTEN and not (to / path.name).exists():
            path.rename(to / path.name)


def folder_name(text: str) -> str:
    """A name for a folder or file, another one for every text.

    Examples:
      >>> folder_name("mgda_ub")
      'mgda_ub'
      >>> folder_name("cagrad(c=0.2)") == folder_name("cagrad(c=0_2)")
      False
    """
    if re.fullmatch(r"[a-z][a-z0-9_]{0,63}", text):
        return text
    legible = re.sub(r"[^\w.=+-]+", "_", text, flags=re.ASCII)[:48]
    return f"{legible}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a JSON-lines file; a last line cut short by a kill is left out."""
    if not path.exists():
        return []
    records = []
    with open(path, encoding="utf-8", newline="\n", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            if line.endswith("\n"):
                records.append(_record(path, number, line))
    return records


def _record(path: Path, number: int, line: str) -> dict[str, Any]:
    with contextlib.suppress(ValueError, RecursionError):
        record = json.loads(line)
        if isinstance(record, dict) and isinstance(record.get("method"), str):
            if isinstance(record.get("epoch"), int):
                return record
    raise ExperimentError(f"{path}: line {number}: not as a run wrote it")


def read_json(path: Path) -> dict[str, Any]:
    """The content of a JSON file; ExperimentError naming it where that cannot be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ExperimentError(f"{path}: not a readable JSON file ({error})") from None
    if not isinstance(content, dict):
        raise ExperimentError(f"{path}: not as a run wrote it, no JSON object")
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file in one piece: a kill leaves the old or the new one."""
    write_text(path, json.dumps(_finite(content), indent=2, allow_nan=False) + "\n")


def _line(record: dict[str, Any]) -> str:
    return json.dumps(_finite(record), allow_nan=False) + "\n"


def write_text(path: Path, text: str) -> None:
    """Write a file in one piece: a kill leaves the old or the new one."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def _finite(value: Any) -> Any:
    # JSON has no NaN: null stands for a number that is not finite.
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
