"""What a run leaves on disk: its configuration, metrics, results and timings."""

import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

from experiments.errors import ExperimentError
from experiments.parallel import leads, wait_for_all

CONFIG, METRICS, RESULTS, TIMINGS = "config.json", "metrics.jsonl", "results.json", "timings.jsonl"


class RunFolder:
    """The folder runs/<name>/ of one run; of several processes, all read and one writes.

    Attributes:
      path: the folder.
      description: the content of config.json.
    """

    def __init__(self, path: Path, description: dict[str, Any], overwrite: bool):
        """Create the folder, or open it to continue the run it holds.

        Args:
          path: the folder.
          description: what goes into config.json; its "experiment" and "config" identify the run.
          overwrite: whether to delete what is there.

        Raises:
          ExperimentError: when the folder holds another run, or something else.
        """
        self.path, self.description, self._writes = path, description, leads()
        if path.exists() and any(path.iterdir()):
            self._check_is_run()
            if not overwrite:
                self._check_same(read_json(path / CONFIG))
        wait_for_all("run folder checked")
        if self._writes:
            if overwrite and path.exists():
                shutil.rmtree(path)
            path.mkdir(parents=True, exist_ok=True)
            if not (path / CONFIG).exists():
                write_json(path / CONFIG, description)
        wait_for_all("run folder made")

    def _check_is_run(self) -> None:
        if not self.path.is_dir() or (
            any(self.path.iterdir()) and not (self.path / CONFIG).is_file()
        ):
            raise ExperimentError(f"{self.path}: exists and is not a run; choose another --name")

    def _check_same(self, found: dict[str, Any]) -> None:
        mine = {"experiment": self.description["experiment"], **self.description["config"]}
        other = {"experiment": found["experiment"], **found["config"]}
        changed = [k for k in sorted(mine | other) if mine.get(k) != other.get(k)]
        if changed:
            key = changed[0]
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            raise ExperimentError(
                f"{self.path}: holds a run with {key} {other.get(key)!r}, not {mine.get(key)!r}"
                f"{more}; choose another --name, or --overwrite it"
            )

    def results(self) -> dict[str, Any]:
        """The finished methods' results by method."""
        path = self.path / RESULTS
        return read_json(path) if path.exists() else {}

    def add_result(self, method: str, result: dict[str, Any]) -> None:
        """Record a finished method."""
        if self._writes:
            write_json(self.path / RESULTS, {**self.results(), method: result})

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
            _replace(self.path / name, "".join(_line(record) for record in kept))

    def log(self, records: list[dict[str, Any]], name: str = METRICS) -> None:
        """Append records, one JSON object a line."""
        if not self._writes:
            return
        with open(self.path / name, "a") as file:
            file.write("".join(_line(record) for record in records))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a JSON-lines file; a last line cut short by a kill is left out."""
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def read_json(path: Path) -> dict[str, Any]:
    """The content of a JSON file; ExperimentError naming it where that cannot be read."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ExperimentError(f"{path}: not a readable JSON file ({error})") from None


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file in one piece: a kill leaves the old or the new one."""
    _replace(path, json.dumps(_finite(content), indent=2, allow_nan=False) + "\n")


def _line(record: dict[str, Any]) -> str:
    return json.dumps(_finite(record), allow_nan=False) + "\n"


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


def _finite(value: Any) -> Any:
    # JSON has no NaN: null stands for a number that is not finite.
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
