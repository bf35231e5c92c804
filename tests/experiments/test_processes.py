"""What needs processes of its own: SIGKILL at any moment, eight devices, two hosts."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from experiments.trainer.run_folder import METRICS, RESULTS, read_lines
from tests.experiments.tiny_run import ROOT, tiny_run


def start(runs_dir: Path, *args: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.experiments.tiny_run", str(runs_dir), *args],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu", **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> None:
    _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nobody killed, from a process like the others."""
    runs_dir = tmp_path_factory.mktemp("whole")
    finish(start(runs_dir))
    return runs_dir / "run"


def unfinished_save(runs_dir: Path) -> bool:
    return any((runs_dir / "run" / "checkpoints").glob("*/[0-9]*tmp*"))


def kill_when(process: subprocess.Popen[str], moment) -> bool:
    """SIGKILL at the first sight of the moment; False where the run ended before it."""
    while process.poll() is None:
        if moment():
            process.send_signal(signal.SIGKILL)
            process.communicate()
            return True
        time.sleep(0.001)
    process.communicate()
    return False


def test_a_killed_run_ends_with_the_same_bytes(whole: Path, tmp_path: Path):
    random_epoch = random.Random(time.time_ns()).randrange(2, 15)

    def some_epochs() -> bool:
        log = tmp_path / "run" / METRICS
        return log.exists() and log.read_bytes().count(b'"validation"') >= 2 * random_epoch

    killed = [
        kill_when(start(tmp_path), lambda: unfinished_save(tmp_path)),
        kill_when(start(tmp_path), some_epochs),
    ]
    assert killed[0]
    finish(start(tmp_path))
    for name in (RESULTS, METRICS):
        message = f"{name} differs after a kill at {random_epoch} epochs"
        assert (tmp_path / "run" / name).read_bytes() == (whole / name).read_bytes(), message


def devices(count: int) -> str:
    return f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"


def test_eight_devices_give_the_same_losses(whole: Path, tmp_path: Path):
    finish(start(tmp_path, XLA_FLAGS=devices(8)))
    assert_same_losses(tmp_path / "run", whole)


def start_two(runs_dir: Path) -> list[subprocess.Popen[str]]:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    shared = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    flags = devices(4)
    return [start(runs_dir, **shared, JAX_PROCESS_ID=str(i), XLA_FLAGS=flags) for i in range(2)]


def test_two_processes_of_four_devices_give_the_same_losses(whole: Path, tmp_path: Path):
    """Killed together after two epochs, they go on from their common checkpoint."""
    log = tmp_path / "run" / METRICS
    first, second = start_two(tmp_path)
    assert kill_when(first, lambda: log.exists() and log.read_bytes().count(b'"validation"') >= 4)
    second.kill()
    second.communicate()
    for process in start_two(tmp_path):
        finish(process)
    assert_same_losses(tmp_path / "run", whole)


def assert_same_losses(run: Path, reference: Path) -> None:
    mine, theirs = (read_lines(path / METRICS) for path in (run, reference))
    assert len(mine) == len(theirs)
    eps = float(np.finfo(np.float32).eps)
    for a, b in zip(mine, theirs, strict=True):
        assert (a["method"], a["seed"], a["step"]) == (b["method"], b["seed"], b["step"])
        if a["split"] == "train":
            np.testing.assert_allclose(a["loss"], b["loss"], rtol=1000 * eps)


def test_a_finished_run_is_not_trained_again(whole: Path):
    before = (whole / METRICS).stat().st_mtime_ns
    tiny_run(whole.parent)
    assert (whole / METRICS).stat().st_mtime_ns == before
