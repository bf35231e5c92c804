"""What there is to run, and the runs there are.

python -m experiments            # the experiments, and the runs in runs/
python -m experiments FOLDER     # of another folder of runs
"""

import ast
import sys
from pathlib import Path

from experiments.errors import FAILED, ExperimentError, program, reading
from experiments.report.table import markdown
from experiments.trainer.methods import split_methods
from experiments.trainer.run_folder import (
    CONFIG,
    RESULTS,
    TIMINGS,
    check_run,
    read_json,
    read_lines,
)


def experiments() -> dict[str, str]:
    """The folders that are commands for an experiment, and the first lines of their docstrings.

    They are not imported, which would take seconds.
    """
    folders = sorted(p.parent for p in Path(__file__).parent.glob("*/command.py"))
    sources = {p.name: (p / "command.py").read_text(encoding="utf-8") for p in folders}
    return {
        name: (ast.get_docstring(ast.parse(source)) or "").splitlines()[0]
        for name, source in sources.items()
    }


def state(path: Path) -> list[str]:
    """One run in words: name, experiment, methods that are finished, the one that is not."""
    with reading(path):
        check_run(path)
        description = read_json(path / CONFIG)
        results = read_json(path / RESULTS) if (path / RESULTS).exists() else {}
        config = description["config"]
        methods = split_methods(config["methods"], len(description["tasks"]))
        begun = {r["method"]: r["epoch"] for r in read_lines(path / TIMINGS)}
        under_way = [
            f"{method} at epoch {epoch} of {config['epochs']}"
            for method, epoch in begun.items()
            if method not in results
        ]
        finished = f"{len(results)} of {len(methods)}"
        return [path.name, description["experiment"], finished, ", ".join(under_way) or "–"]


def runs(folder: Path) -> str:
    """The runs in a folder as a table."""
    lines = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.startswith(".") or not (path / CONFIG).is_file():
            continue
        try:
            lines.append(state(path))
        except ExperimentError as error:
            lines.append([path.name, "–", "–", str(error)])
    if not lines:
        return f"No runs in {folder}."
    return markdown(["run", "experiment", "finished", "under way"], lines)


def main(args: list[str]) -> None:
    """Print both."""
    with program("experiments"):
        if len(args) > 1 or any(arg.startswith("-") for arg in args):
            print(str(__doc__).strip())
            sys.exit(0 if args in (["-h"], ["--help"]) else FAILED)
        folder = Path(args[0] if args else "runs")
        if args and not folder.is_dir():
            raise ExperimentError(f"{folder}: no such folder")
        for module, line in experiments().items():
            print(f"python -m experiments.{module:<11} {line}")
        print(f"\n{runs(folder)}")


if __name__ == "__main__":
    main(sys.argv[1:])
