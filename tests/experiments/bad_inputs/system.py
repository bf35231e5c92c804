"""What a file system, a terminal and their limits do to a command."""

import functools
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

from experiments.trainer.run_folder import CONFIG, METRICS, RESULTS
from tests.experiments import tiny_program
from tests.experiments.bad_inputs.outcome import LOST, ROOT, Case, Outcome, attempt, process


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
