"""Interrupted, terminated and killed, then continued."""

import functools
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from experiments.trainer.run_folder import METRICS, RESULTS
from tests.experiments.bad_inputs.outcome import (
    FINE,
    LOST,
    ROOT,
    TRACEBACK,
    Case,
    Outcome,
    environment,
    process,
)


def signal_cases(folder: Path, count: int = 50) -> Iterator[Case]:
    """Interrupted, terminated and killed at any moment, then continued to the same bytes."""
    folder.mkdir()
    rng = random.Random(time.time_ns())
    args = ["--cache-dir", str(ROOT / ".cache"), "--epochs", "40"]
    numbers = (RESULTS, METRICS)
    whole: dict[str, bytes] = {}

    def expected() -> dict[str, bytes]:
        if not whole:
            done = process([*args, "--runs-dir", str(folder / "whole")])
            assert done.kind == FINE, done
            whole.update({n: (folder / "whole" / "run" / n).read_bytes() for n in numbers})
        return whole

    def case(number: int, last: bool) -> Outcome:
        expected()
        runs = folder / f"run{number // 10}"
        command = [sys.executable, "-m", "tests.experiments.tiny_program", *args]
        running = subprocess.Popen(
            [*command, "--runs-dir", str(runs), *(["--overwrite"] if number % 10 == 5 else [])],
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        kind = (signal.SIGINT, signal.SIGKILL, signal.SIGTERM)[number % 3]
        log, seen = runs / "run" / METRICS, time.monotonic()
        early = number % 5 == 0  # while it starts; else some time after it has logged anew
        before = log.stat().st_size if log.exists() else 0
        while not early and running.poll() is None and time.monotonic() - seen < 120:
            if log.exists() and log.stat().st_size > before:
                break
            time.sleep(0.002)
        time.sleep(0.4 + rng.random() * 4 if early else rng.random() ** 2 * 2)
        running.send_signal(kind)
        error = running.communicate()[1].decode(errors="replace")
        if "Traceback" in error or "Exception ignored" in error:
            return Outcome(TRACEBACK, f"{kind.name}: {error}")
        if not last:
            return Outcome(FINE, error)
        done = process([*args, "--runs-dir", str(runs)])
        if done.kind != FINE:
            return done
        same = all((runs / "run" / n).read_bytes() == expected()[n] for n in numbers)
        return Outcome(FINE if same else LOST, f"{runs}: resumed to other bytes")

    for number in range(count):
        last = number % 10 == 9 or number == count - 1
        yield f"signal {number}", functools.partial(case, number, last)
