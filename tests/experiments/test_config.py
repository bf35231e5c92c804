"""Command lines: what they mean, and the one line that a wrong one gets."""

import contextlib
import re
from pathlib import Path

import pytest

from experiments.multimnist.command import MultiMnistConfig, main
from experiments.trainer.config import TrainingConfig, identity, run_main


def call(args: list[str], capsys: pytest.CaptureFixture[str], action=None) -> tuple[int, str, str]:
    code = 0
    try:
        run_main(action or (lambda config: None), MultiMnistConfig, "multimnist", args)
    except SystemExit as stop:
        code = int(stop.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("--foo 3", "Unrecognized options: --foo, 3"),
        ("--seeds x", "--seeds: invalid literal for int() with base 10: 'x'"),
        ("--epochs x", "--epochs: expected INT, got ['x']"),
        ("--epochs -1", "--epochs: expected at least 1, got -1"),
        ("--batch-size -1", "--batch-size: expected at least 1, got -1"),
        ("--runs-at-once -1", "--runs-at-once: expected at least 1, got -1"),
        ("--steps-per-dispatch -1", "--steps-per-dispatch: expected at least 1, got -1"),
        ("--learning-rate -1", "--learning-rate: expected positive numbers of float32, got -1.0"),
        ("--learning-rate 1e-320", "--learning-rate: expected positive numbers of float32"),
        ("--learning-rate 1e39", "--learning-rate: expected positive numbers of float32"),
        ("--learning-rate 0.1 0.1", "--learning-rate: expected each number once, got 0.1 0.1"),
        ("--checkpoint-seconds nan", "--checkpoint-seconds: expected 0 or more seconds, got nan"),
        ("--checkpoint-seconds -1", "--checkpoint-seconds: expected 0 or more seconds, got -1"),
        ("--decay-factor 1e-320", "--decay-factor: expected a positive number of float32"),
        ("--seeds 1000000000000", "--seeds: expected at most 10000"),
        ("--epoch 3", "--epoch, 3; perhaps you meant --epochs (see --help)"),
        ("--no-overwrit", "perhaps you meant --overwrite (see --help)"),
        ("--epochs 0", "--epochs: expected at least 1, got 0"),
        ("--seeds 0", "--seeds: expected at least 1, got 0"),
        ("--dataset emnist", "invalid choice 'emnist' for argument '--dataset'"),
        ("--learning-rate 0.1 -1", "--learning-rate: expected positive numbers of float32, got -1"),
        ("--learning-rate nan", "--learning-rate: expected positive numbers of float32, got nan"),
        ("--learning-rate", "--learning-rate: expected one or more, got none"),
        ("--momentum 1", "--momentum: expected a number in [0, 1), got 1.0"),
        ("--decay-every 0", "--decay-every: expected a positive number of float32, got 0.0"),
        ("--name ../elsewhere", "--name: expected the name of one folder, got '../elsewhere'"),
        ("--methods", "Missing value for argument '--methods'"),
    ],
)
def test_a_wrong_flag_gets_one_line(args: str, message: str, capsys: pytest.CaptureFixture[str]):
    code, out, err = call(args.split(), capsys)
    assert code != 0 and out == ""
    assert err.count("\n") == 1 and err.startswith("multimnist: ") and message in err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("--methods adam", "--methods: no method 'adam'"),
        ("--data-dir .", "--data-dir: --dataset digits ships with scikit-learn"),
        ("--dataset mnist --data-dir {tmp}/absent", "--data-dir: no such folder {tmp}/absent"),
        ("--dataset mnist --data-dir {tmp}", "{tmp}/train-images-idx3-ubyte.gz: no such file"),
    ],
)
def test_what_only_the_job_finds_wrong_gets_one_line_too(
    args: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    given = f"{args} --runs-dir {{tmp}} --cache-dir {{tmp}}".replace("{tmp}", str(tmp_path))
    code, out, err = call(given.split(), capsys, main)
    assert code != 0 and out == ""
    assert err.count("\n") == 1 and message.replace("{tmp}", str(tmp_path)) in err


def test_help_explains_every_flag_with_its_default(capsys: pytest.CaptureFixture[str]):
    code, out, _ = call(["--help"], capsys)
    assert code == 0
    blocks = re.split(r"^\W (?=--)", out, flags=re.MULTILINE)[1:]
    explained = {re.split(r"[ ,]", block)[0]: " ".join(block.split()) for block in blocks}
    flags = TrainingConfig.__dataclass_fields__ | MultiMnistConfig.__dataclass_fields__
    assert set(explained) == {f"--{flag.replace('_', '-')}" for flag in flags}
    for flag, text in explained.items():
        assert "(default: " in text and len(text.split("(default: ")[0].split()) > 3, flag


def test_defaults_depend_on_the_data_set():
    digits, mnist = (MultiMnistConfig(dataset=name).resolved() for name in ("digits", "mnist"))
    assert (digits.epochs, digits.batch_size, digits.name) == (15, 64, "multimnist-digits")
    assert (mnist.epochs, mnist.batch_size, mnist.name) == (100, 256, "multimnist-mnist")
    assert MultiMnistConfig(epochs=3, name="mine").resolved().epochs == 3


def test_where_files_lie_is_no_part_of_a_runs_identity(tmp_path: Path):
    here, there = MultiMnistConfig(), MultiMnistConfig(runs_dir=tmp_path, data_dir=tmp_path)
    assert identity(here) == identity(there) != identity(MultiMnistConfig(seeds=4))


def test_ctrl_c_says_how_to_go_on(capsys: pytest.CaptureFixture[str]):
    def interrupted(config):
        raise KeyboardInterrupt

    code, _, err = call([], capsys, interrupted)
    assert code == 130 and err == "multimnist: interrupted; the same command continues\n"


def test_an_unexpected_error_keeps_its_traceback(capsys: pytest.CaptureFixture[str]):
    with contextlib.suppress(ZeroDivisionError):
        call([], capsys, lambda config: 1 / 0)
        raise AssertionError("the error was swallowed")
