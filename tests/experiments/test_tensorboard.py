"""Event files hold what metrics.jsonl holds, once; without tensorboardX there is one line."""

import dataclasses
import json
import struct
import sys
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event

from experiments.multimnist.command import MultiMnistConfig
from experiments.multimnist.command import main as multimnist
from experiments.report.tensorboard import main, write_events
from experiments.trainer.checkpoints import Checkpoints
from experiments.trainer.config import TrainingConfig, identity, run_main
from experiments.trainer.experiment import run_experiment
from experiments.trainer.run_folder import CONFIG as CONFIG_FILE
from experiments.trainer.run_folder import EVENTS, METRICS, write_json
from tests.experiments.tiny_problem import tiny_problem
from tests.experiments.tiny_run import CONFIG


def read_events(folder: Path) -> list[tuple[str, int, float]]:
    """Tag, step and value of every scalar, read by the format's definition."""
    found = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data, at = path.read_bytes(), 0
        while at < len(data):  # length, its checksum, the event, its checksum
            (length,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + length])
            found += [(v.tag, event.step, v.simple_value) for v in event.summary.value]
            at += 12 + length + 4
    return found


def log(path: Path, seed: int, step: int, **values: object) -> None:
    record = {"method": "mgda", "variant": "", "learning_rate": 0.1, "seed": seed}
    with open(path / METRICS, "a") as file:
        file.write(json.dumps({**record, "epoch": 1, "step": step, **values}) + "\n")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run of two tasks and two seeds."""
    write_json(tmp_path / CONFIG_FILE, {"tasks": ["left", "right"]})
    cosine = [[1.0, 0.5], [0.5, 1.0]]
    for seed in (0, 1):
        log(tmp_path, seed, 5, split="train", loss=[2.0, seed], min_norm=0.25, cosine=cosine)
        log(tmp_path, seed, 5, split="validation", accuracy=[50.0, None])
    return tmp_path


def test_scalars_are_those_that_were_logged_and_written_once(folder: Path):
    names = [f"{EVENTS}/mgda/rate_0.1_seed_{seed}" for seed in (0, 1)]
    assert write_events(folder) == names
    want = [
        ("train_loss/left", 5, 2.0),
        ("train_loss/right", 5, 1.0),
        ("train_min_norm", 5, 0.25),
        ("validation_accuracy/left", 5, 50.0),
    ]
    assert read_events(folder / names[1]) == want
    log(folder, 1, 10, split="train", loss=[1.5, 0.5])
    assert write_events(folder, "mgda") == names
    more = [("train_loss/left", 10, 1.5), ("train_loss/right", 10, 0.5)]
    assert read_events(folder / names[1]) == want + more
    assert write_events(folder, "uniform") == []


def test_command_names_folder_and_faults(folder: Path, capsys: pytest.CaptureFixture[str]):
    main([str(folder)])
    assert capsys.readouterr().out == f"{folder / EVENTS}: event files of 2 runs\n"
    with pytest.raises(SystemExit) as stop:
        main([str(folder / "absent")])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1 and "absent" in error


def test_a_run_writes_event_files_after_each_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = TrainingConfig(**{**CONFIG, "methods": "uniform"}, runs_dir=tmp_path, epochs=2)
    config = dataclasses.replace(config, tensorboard=True)
    problem = tiny_problem(num_test=16)
    assert identity(config) == identity(dataclasses.replace(config, tensorboard=False))
    folder, seen = tmp_path / "run" / EVENTS / "uniform" / "rate_0.05_seed_1", []
    save = Checkpoints.save

    def watched(self, epoch: int, *args, **options):
        seen.append(max(step for _, step, _ in read_events(folder)))
        return save(self, epoch, *args, **options)

    monkeypatch.setattr(Checkpoints, "save", watched)
    run_experiment(problem, config, "tiny", {})
    assert seen == [3, 6]  # steps, on the disk before the epoch's checkpoint is
    events = read_events(folder)
    assert len(events) == len(set(events))
    assert {tag for tag, _, _ in events} >= {"train_loss/left", "validation_accuracy/right"}
    run_experiment(problem, config, "tiny", {})
    assert read_events(folder) == events


def test_missing_tensorboardx_is_said_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)  # as if it could not be imported
    args = ["--tensorboard", "--runs-dir", str(tmp_path / "runs")]
    with pytest.raises(SystemExit) as stop:
        run_main(multimnist, MultiMnistConfig, "multimnist", args)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1
    assert "python -m pip install tensorboardX" in error
    assert not (tmp_path / "runs").exists()
