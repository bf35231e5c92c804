"""Feed the commands what is wrong with flags, files, folders, the system and the moment.

python -m tests.experiments.bad_inputs [flags] [data] [folders] [system] [signals]

Of each group it prints how many inputs were tried, how many got one line, how many a traceback,
and after how many something of a run was lost; then each of the last two.
"""

import contextlib
import functools
import gzip
import io
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
from PIL import Image

from experiments.celeba import command as celeba
from experiments.celeba.data import ATTRIBUTES, read_attributes, read_partition
from experiments.cityscapes import command as cityscapes
from experiments.data.files import read_idx
from experiments.data.images import read_image, read_integers
from experiments.errors import program
from experiments.models.pretrained import read_tensors
from experiments.multilabel import command as multilabel
from experiments.multilabel.arff import read_arff
from experiments.multilabel.data import read_labels
from experiments.multimnist import command as multimnist
from experiments.pinn import command as pinn
from experiments.report import tensorboard
from experiments.report.__main__ import main as report_main
from experiments.toy import command as toy
from experiments.trainer import experiment
from experiments.trainer.config import run_main
from experiments.trainer.run_folder import CONFIG, METRICS, RESULTS, TIMINGS
from experiments.vae import command as vae
from tests.experiments import tiny_program
from tests.experiments.official_files import write_idx

ROOT = Path(__file__).parents[2]
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


# Flags


def _bad(kind: str) -> list[str]:
    words = ["x", "", "-", "1,2", "0x10", "½", "1_", "None,"]
    count = ["-1", "-0.5", "1.5", "nan", "inf", "1e3", "9" * 30, *words]
    number = ["nan", "inf", "-inf", "-1", "1e400", *words]
    name = ["..", "a/b", "/", ".x", "-x", "g[1]", "a*", "?", "a\\b", "a\nb", "gs:", "\udcff"]
    name.append("x" * 300)
    return {"count": count, "number": number, "name": name}[kind]


COUNTS = ("seeds", "epochs", "batch-size", "grid", "runs-at-once")
COUNTS = (*COUNTS, "steps-per-dispatch", "log-points")
NUMBERS = ("learning-rate", "momentum", "decay-factor", "decay-every", "checkpoint-seconds")
CHOICES = ("optimizer", "head-scope", "dataset", "regression", "feed")
METHODS = (
    *("", ",", "mgad", "MGDA", "mgda,mgda", "mgda(", "mgda)", "mgda()x", "mgda(l2)", "mgda(=l2)"),
    *("mgda(normalization)", "mgda(normalization=)", "mgda(normalization=max)", "single(a=1)"),
    *("grid(a=1)", "fixed", "fixed(weights=[1])", "fixed(weights=x)", "fixed(weights=[1,2,3])"),
    *("fixed(weights={})", "fixed(weights=None)", "pcd(primary=5)"),
    *("pcd(primary=-3)", "pcd(primary=x)", "rlw(seed=x)", "rlw(seed=[1])", "cr_mogm", "uniform_ub"),
    *("cr_mogm(weighting=nothing)", "cr_mogm(weighting=mgda(x=1))", "cr_mogm(weighting=single)"),
    *("cr_mogm(weighting=" * 40, "uniform(reduction=3)", "uniform(reduction=[])", "mgda_ub_ub"),
    *("cagrad(c=x)", "cagrad(c=None)", "cagrad(c=[1,2])", "krum(num_byzantine=x)", "all,all"),
    *("famo_ub", "all_ub", "single_ub", "mgda\0", "mgda;", "nash_mtl(max_steps=x)", "__import__"),
    *(f"fixed(weights={'[' * 300})", "fixed(weights=1e999)", "dwa(temperature=x)", "os.system"),
)
MISSPELT = (
    *("--epoch", "--lr", "--seed", "-n", "--method", "--learning_rat", "--over", "--no-dataset"),
    *("--", "---epochs", "--epochs=", "--epochs=x", "--=3", "epochs", "--run-dir", "--help=3"),
)


def flag_cases(folder: Path) -> Iterator[Case]:
    """Wrong command lines of every experiment."""
    tail = ["--runs-dir", str(folder / "runs"), "--cache-dir", str(folder / "cache")]
    trained = {
        "multimnist": (multimnist.main, multimnist.MultiMnistConfig, ("data-dir",)),
        "celeba": (celeba.main, celeba.CelebaConfig, ("data-dir",)),
        "cityscapes": (cityscapes.main, cityscapes.CityscapesConfig, ("data-dir", "pretrained")),
        "multilabel": (multilabel.main, multilabel.MultilabelConfig, ("data-dir",)),
        "pinn": (pinn.main, pinn.PinnConfig, ()),
        "vae": (vae.main, vae.VaeConfig, ()),
        "tiny": (tiny_program.main, tiny_program.TinyConfig, ()),
    }

    def case(name: str, main: Any, config: Any, args: list[str]) -> Case:
        def command() -> None:
            run_main(main, config, name, args)

        return f"{name} {' '.join(args[-2:])[:60]!r}", functools.partial(attempt, command)

    for name, (main, config, paths) in trained.items():
        known = {field.replace("_", "-") for field in config.__dataclass_fields__}
        wrong = [(flag, v) for flag in COUNTS if flag in known for v in ["0", *_bad("count")]]
        wrong += [(flag, value) for flag in NUMBERS for value in _bad("number")]
        wrong += [("learning-rate", v) for v in ("0", "1e-320", "1e39")]
        wrong += [(flag, v) for flag in CHOICES if flag in known for v in ("x", "", "SGD", "0")]
        wrong += [("name", value) for value in _bad("name")]
        wrong += [(path, str(folder / "absent")) for path in ("tuned-by", *paths)]
        for flag, value in wrong:
            yield case(name, main, config, [*tail, f"--{flag}={value}"])
        for flag in MISSPELT:
            yield case(name, main, config, [*tail, flag, "3"])
    main, config, _ = trained["tiny"]
    for methods in METHODS:
        yield case("tiny", main, config, [*tail, f"--methods={methods}"])
    tail = tail[:2]
    for methods in (*METHODS, "single", "grid", "mgda_ub", "famo", "modo", "sdmgrad"):
        yield case("toy", toy.main, toy.ToyConfig, [*tail, f"--methods={methods}"])
    for flag, values in (("steps", _bad("count")), ("learning-rate", ["0", *_bad("number")])):
        for value in values:
            yield case("toy", toy.main, toy.ToyConfig, [*tail, f"--{flag}={value}"])


# Data and weights


def damaged(content: bytes, rng: random.Random) -> Iterator[bytes]:
    """A file's content, cut, flipped, filled and replaced."""
    size = len(content)
    yield from (b"", b"\0", b"\0" * size, b"\xff" * 64, b"text\n", content[::-1], content * 2)
    yield from (content[: size * part // 8] for part in range(1, 8))
    yield content[: size // 2] + b"\0" * (size - size // 2)
    yield content + b"\0"
    for _ in range(8):
        flipped = bytearray(content)
        for _ in range(3):
            flipped[rng.randrange(min(size, 200))] ^= 1 << rng.randrange(8)
        yield bytes(flipped)


def _safetensors(header: Any, data: bytes = b"\0" * 24) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def _special_files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Files that are damaged on purpose: (name, content)."""
    tensor = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
    for key in tensor:
        for value in (None, "x", [], {}, -1, 1e9, True, [2**70], [-2, -3], [0, 2**70], [24, 0]):
            yield "w.safetensors", _safetensors({"a": {**tensor, key: value}})
    yield "w.safetensors", (2**63).to_bytes(8, "little") + b"{}"
    yield "w.safetensors", _safetensors({"a": None})
    yield "w.safetensors", (10**5).to_bytes(8, "little") + b"[" * 10**5
    for axes in ((2**32 - 1,) * 4, (2**31, 2**31), (0,), (1,) * 255):
        head = bytes([0, 0, 8, len(axes)]) + np.array(axes, ">u4").tobytes()
        path = folder / "made.gz"
        path.write_bytes(gzip.compress(head + b"x" * 10))
        yield "i.gz", path.read_bytes()
    for names in ("../../x.jpg 0", "/etc/passwd 0", "a\\..\\b 0", "c:x 1", ".. 0", "x.jpg 3", "x"):
        yield "partition.txt", f"{names}\n".encode()
    yield "partition.txt", "\ud800".encode("utf-16", "surrogatepass")


def data_cases(folder: Path) -> Iterator[Case]:
    """Damaged files of data and weights."""
    rng = random.Random(0)
    folder.mkdir()
    write_idx(folder / "i.gz", np.arange(60).reshape(3, 4, 5))
    np.savez(folder / "w.npz", a=np.ones((2, 3), np.float32), b=np.zeros(4))
    tensor = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
    (folder / "w.safetensors").write_bytes(_safetensors({"a": tensor}))
    (folder / "partition.txt").write_text("000001.jpg 0\n000002.jpg 1\n000003.jpg 2\n")
    lines = [f"00000{i}.jpg {' '.join(['1', '-1'] * 20)}" for i in (1, 2)]
    (folder / "attributes.txt").write_text("\n".join(["2", " ".join(ATTRIBUTES), *lines]) + "\n")
    attributes = "@relation r\n@attribute 'a b' numeric\n@attribute c {0,1}\n@data\n"
    (folder / "t.arff").write_text(f"{attributes}1.5,1\n{{0 2,1 1}}\n{{}}\n?,'0'\n")
    (folder / "l.xml").write_text('<labels><label name="a"/><label name="b"/></labels>')
    Image.fromarray(np.arange(300, dtype=np.uint8).reshape(10, 10, 3)).save(folder / "image.png")
    Image.fromarray(np.arange(100, dtype=np.uint8).reshape(10, 10)).save(folder / "labels.png")
    with zipfile.ZipFile(folder / "z.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(folder / "image.png", "img/image.png")
    readers: dict[str, Callable[[Path], object]] = {
        "i.gz": read_idx,
        "w.npz": read_tensors,
        "w.safetensors": read_tensors,
        "partition.txt": read_partition,
        "attributes.txt": read_attributes,
        "t.arff": read_arff,
        "l.xml": read_labels,
        "image.png": functools.partial(read_image, mode="RGB"),
        "labels.png": read_integers,
        "z.zip": _read_zipped,
    }

    def case(name: str, content: bytes) -> Outcome:
        path = folder / "bad" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)

        def command() -> None:
            with program("data"):
                readers[name](path)

        return attempt(command)

    for name in readers:
        for i, content in enumerate(damaged((folder / name).read_bytes(), rng)):
            yield f"{name} {i}", functools.partial(case, name, content)
    for i, (name, content) in enumerate(_special_files(folder)):
        yield f"special {i} {name}", functools.partial(case, name, content)
    whole = (folder / "z.zip").read_bytes()
    for flag, method in ((1, 8), (0, 9), (0, 99), (0, 14)):  # encrypted; deflate64, unknown, LZMA
        content = bytearray(whole)
        for mark, at in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
            place = content.index(mark) + at
            content[place] |= flag
            content[place + 2 : place + 4] = method.to_bytes(2, "little")
        yield f"zip {flag} {method}", functools.partial(case, "z.zip", bytes(content))


def _read_zipped(path: Path) -> object:
    from experiments.celeba.builder import _open_images

    with mock.patch("experiments.celeba.data.IMAGES", "img"):
        return read_image(_open_images(path) / "image.png", "RGB")


# Folders of runs


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


# The system


def _environment() -> dict[str, str]:
    # Of a full disk JAX warns at every program that it cannot keep.
    return {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONWARNINGS": "ignore::UserWarning"}


def process(args: list[str], shell: str = "exec {}", **options: Any) -> Outcome:
    """The tiny program's end, in a process of its own behind a shell's redirections."""
    words = [sys.executable, "-m", "tests.experiments.tiny_program", *args]
    command = shell.format(" ".join(map(shlex.quote, words)))
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        cwd=ROOT,
        env={**_environment(), **options.get("env", {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        timeout=300,
        check=False,
    )
    return judge(done.returncode, done.stderr.decode(errors="replace"))


def system_cases(folder: Path) -> Iterator[Case]:
    """What a file system, a terminal and their limits do to a command."""
    folder.mkdir()
    base = ["--cache-dir", str(ROOT / ".cache"), "--epochs", "2", "--methods", "uniform"]
    tail = [*base, "--runs-dir"]

    def inside(args: list[str], prepare: Callable[[], object] = lambda: None) -> Outcome:
        prepare()
        return attempt(lambda: tiny_program.call(args))

    def blocked(name: str) -> Outcome:
        """A run whose file or folder cannot be written, then nothing in its way."""
        runs = folder / f"blocked {name}".replace("/", " ")
        (runs / "run" / name).mkdir(parents=True)
        (runs / "run" / name / "mine").touch()
        first = attempt(lambda: tiny_program.call([*tail, str(runs)]))
        if not (runs / "run" / name / "mine").exists():
            return Outcome(LOST, name)
        return first

    (folder / "file").touch()
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "dangling").symlink_to(folder / "nowhere")
    for runs in ("file", "file/below", "loop", "dangling", "x" * 300, "a/" * 3000):
        yield f"runs {runs[:20]}", functools.partial(inside, [*tail, str(folder / runs)])
    for place in ("/proc", "/sys", "/dev/full", "/dev/null"):
        yield f"runs {place}", functools.partial(inside, [*tail, f"{place}/runs"])
    for cache in ("file", "file/below", "loop", "x" * 300):
        args = ["--runs-dir", str(folder / "r"), "--cache-dir", str(folder / cache)]
        yield f"cache {cache[:20]}", functools.partial(inside, args)
    for tuned in ("file", "loop", "."):
        args = [*tail, str(folder / "r"), "--tuned-by", str(folder / tuned)]
        yield f"tuned by {tuned}", functools.partial(inside, args)
    for name in (CONFIG, RESULTS, METRICS, "table.md", "checkpoints/uniform/1"):
        yield f"blocked {name}", functools.partial(blocked, name)
    lock = folder / "locked" / ".run.lock"
    yield (
        "lock",
        functools.partial(
            inside, [*tail, str(folder / "locked")], lambda: lock.mkdir(parents=True)
        ),
    )
    shells = {
        "full output": "exec {} > /dev/full",
        "no output": "exec {} >&-",
        "no errors": "exec {} 2>&-",
        "no streams": "exec {} <&- >&- 2>&-",
        "broken pipe": "{} | true",
        "help into a broken pipe": "{} --help | true",
        "help on a full disk": "exec {} --help > /dev/full",
        "large files": f"ulimit -f 1; exec {{}} --cache-dir {shlex.quote(str(folder / 'cache'))}",
        "few open files": "ulimit -n 20; exec {}",
    }
    for label, shell in shells.items():
        yield label, functools.partial(process, [*tail, str(folder / label)], shell)
    environments = {
        "ASCII": {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"},
        "narrow": {"COLUMNS": "1", "LINES": "1", "TERM": "dumb"},
        "no home": {"HOME": "/nowhere", "TMPDIR": "/nowhere", "MPLCONFIGDIR": "/nowhere"},
    }
    for label, env in environments.items():
        yield label, functools.partial(process, [*tail, str(folder / label)], env=env)


# Signals


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
            env=_environment(),
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
            return Outcome(ONE_LINE, error)
        done = process([*args, "--runs-dir", str(runs)])
        if done.kind != FINE:
            return done
        same = all((runs / "run" / n).read_bytes() == expected()[n] for n in numbers)
        return Outcome(FINE if same else LOST, f"{runs}: resumed to other bytes")

    for number in range(count):
        last = number % 10 == 9 or number == count - 1
        yield f"signal {number}", functools.partial(case, number, last)


GROUPS: dict[str, Callable[[Path], Iterator[Case]]] = {
    "flags": flag_cases,
    "data": data_cases,
    "folders": folder_cases,
    "system": system_cases,
    "signals": signal_cases,
}


def outcomes(cases: Iterable[Case], every: int = 1) -> dict[str, Outcome]:
    """The outcome of each case, or of each so many."""
    found = {}
    for number, (label, case) in enumerate(cases):
        if number % every == 0:
            found[f"{number}: {label}"] = case()
    return found


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


def main(names: list[str]) -> None:
    """Print the counts of each group."""
    bad = 0
    with tempfile.TemporaryDirectory() as temporary:
        for name in names or GROUPS:
            started = time.monotonic()
            folder = Path(temporary) / name
            with no_training() if name == "flags" else contextlib.nullcontext():
                found = outcomes(GROUPS[name](folder))
            kinds = [outcome.kind for outcome in found.values()]
            numbers = ", ".join(f"{k} {kinds.count(k)}" for k in (ONE_LINE, TRACEBACK, LOST))
            seconds = time.monotonic() - started
            print(f"{name}: tried {len(found)}, {numbers} ({seconds:.0f} s)", flush=True)
            for label, outcome in found.items():
                accepted = name == "flags" and outcome.kind == FINE
                if outcome.kind in (TRACEBACK, LOST) or accepted:
                    bad += 1
                    print(f"  {label}: {outcome.kind}: {outcome.said[-1500:]}", flush=True)
    sys.exit(bad > 0)


if __name__ == "__main__":
    main(sys.argv[1:])
