"""What an input leads to: nothing, one line, a traceback, or something lost."""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from experiments.toy import command as toy
from experiments.trainer import experiment

ROOT = Path(__file__).parents[3]
FINE, ONE_LINE, TRACEBACK, LOST = "fine", "one line", "traceback", "lost"


class Outcome(NamedTuple):
    """What an input led to, and what was said."""

    kind: str
    said: str


Case = tuple[str, Callable[[], Outcome]]


class _Accepted(BaseException):
    """Training would begin."""


def attempt(command: Callable[[], object]) -> Outcome:
    """A command's end, in this process."""
    error, code = io.StringIO(), 0
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(error),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        try:
            command()
        except SystemExit as stop:
            code = stop.code
        except _Accepted:
            return Outcome(FINE, "accepted")
        except BaseException:
            return Outcome(TRACEBACK, traceback.format_exc())
    return judge(code, error.getvalue())


def judge(code: Any, error: str) -> Outcome:
    """By the exit code and what the command wrote to the stream of errors."""
    if "Traceback" in error or "Exception ignored" in error:
        return Outcome(TRACEBACK, error)
    if code == 0:
        return Outcome(FINE, error)
    bar = re.compile(r"[\r\n][^\r\n]*?\d+%\|[^\r\n]*epoch[^\r\n]*\]")
    lines = [line for line in bar.sub("", f"\n{error}").splitlines() if line.strip()]
    if code not in (2, 130) or len(lines) != 1:
        return Outcome(TRACEBACK, f"exit code {code}: {error!r}")
    return Outcome(ONE_LINE, lines[0])


def environment() -> dict[str, str]:
    """The tiny program's environment variables."""
    # Of a full disk JAX warns at every program that it cannot keep.
    return {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONWARNINGS": "ignore::UserWarning"}


def process(args: list[str], shell: str = "exec {}", **options: Any) -> Outcome:
    """The tiny program's end, in a process of its own behind a shell's redirections."""
    words = [sys.executable, "-m", "tests.experiments.tiny_program", *args]
    command = shell.format(" ".join(map(shlex.quote, words)))
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        cwd=ROOT,
        env={**environment(), **options.get("env", {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        timeout=300,
        check=False,
    )
    return judge(done.returncode, done.stderr.decode(errors="replace"))


@contextlib.contextmanager
def no_training() -> Iterator[None]:
    """Where training would begin, a case is over."""

    def stop(*_: Any, **__: Any) -> Any:
        raise _Accepted

    with (
        mock.patch.object(experiment, "RunFolder", stop),
        mock.patch.object(toy, "walk", stop),
    ):
        yield
