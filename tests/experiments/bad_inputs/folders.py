"""Edited files of a finished run."""

import functools
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.report import tensorboard
from experiments.report.__main__ import main as report_main
from experiments.trainer.run_folder import CONFIG, METRICS, RESULTS, TIMINGS
from tests.experiments import tiny_program
from tests.experiments.bad_inputs.outcome import (
    FINE,
    LOST,
    ONE_LINE,
    ROOT,
    TRACEBACK,
    Case,
    Outcome,
    attempt,
)


def content(folder: Path) -> dict[str, bytes]:
    """All files in a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def _edits(run: Path) -> Iterator[tuple[str, str, str]]:
    """(name, file, new text): of every file the whole and every part of its first levels."""
    whole = ("", "{}", "[]", "null", "\0", "x", "3", '"x"', "{", "[" * 10**5, '{"a": 1}')
    for name in (CONFIG, RESULTS, METRICS, TIMINGS):
        for i, text in enumerate(whole):
            end = "\n" if name.endswith("l") else ""
            yield f"{name} whole {i}", name, text + end
        if name.endswith("l"):
            lines = (run / name).read_text().splitlines(keepends=True)
            yield f"{name} NUL", name, "".join([*lines[:2], "\0" * 30 + "\n", *lines[2:]])
            for key in json.loads(lines[0]):
                for value in (None, "x", [1], -1):
                    first = json.dumps({**json.loads(lines[0]), key: value}) + "\n"
                    yield f"{name} {key}={value}", name, first + "".join(lines[1:])
            continue
        found = json.loads((run / name).read_text())
        for path in _places(found, 4):
            for value in ("nothing", None, "x", [], 1e308):
                label = f"{name} {'.'.join(map(str, path))}={value}"
                yield label, name, _edited(found, path, value)


def _places(found: Any, depth: int) -> Iterator[tuple[Any, ...]]:
    if depth and isinstance(found, dict):
        for key, value in found.items():
            yield (key,)
            yield from ((key, *rest) for rest in _places(value, depth - 1))
    elif depth and isinstance(found, list) and found:
        yield (0,)
        yield from ((0, *rest) for rest in _places(found[0], depth - 1))


def _edited(found: Any, path: tuple[Any, ...], value: Any) -> str:
    copy = json.loads(json.dumps(found))
    place = functools.reduce(lambda at, key: at[key], path[:-1], copy)
    if value == "nothing":
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return json.dumps(copy)


def folder_cases(folder: Path, most: int = 120) -> Iterator[Case]:
    """Edited files of a finished run, then its report, its event files and the same command."""
    folder.mkdir()
    args = ["--runs-dir", str(folder), "--cache-dir", str(ROOT / ".cache")]
    made = attempt(lambda: tiny_program.call(args))
    assert made.kind == FINE, made.said
    run, edits = folder / "run", list(_edits(folder / "run"))
    before = content(run)
    random.Random(0).shuffle(edits)

    def case(name: str, text: str) -> Outcome:
        shutil.rmtree(run)
        for file, data in before.items():
            (run / file).parent.mkdir(parents=True, exist_ok=True)
            (run / file).write_bytes(data)
        (run / name).write_text(text)
        outcomes = []
        commands = (
            lambda: report_main([str(run)]),
            lambda: tensorboard.main([str(run)]),
            lambda: tiny_program.call(args),
        )
        for command in commands:
            outcomes.append(attempt(command))
            now = content(run)
            gone = [file for file in before if file not in now and "tensorboard" not in file]
            changed = [n for n in (CONFIG, RESULTS) if n != name and now.get(n) != before[n]]
            if gone or changed:
                return Outcome(LOST, f"{gone} {changed}: {outcomes[-1]}")
        return max(outcomes, key=lambda o: (FINE, ONE_LINE, TRACEBACK).index(o.kind))

    # The parts of a few files are many: all of the whole files, some of the parts.
    edits.sort(key=lambda edit: "whole" not in edit[0] and "NUL" not in edit[0])
    for label, name, text in edits[:most]:
        yield label, functools.partial(case, name, text)
