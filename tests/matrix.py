"""A bounded part of the tests on the oldest and the newest jax, on every Python at hand.

    make matrix
    python -m tests.matrix --pythons python3.13 --versions newest

"oldest" is the lower bounds of pyproject.toml, on the oldest Python; "newest" is what the package
index has. Environments stay in .cache/matrix.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
NEEDS = ["chex", "pytest", "quadprog", "scipy"]
TESTS = ["tests/test_tasks.py", "tests/test_aggregate.py", "tests/min_norm/test_contract.py"]


def oldest() -> list[str]:
    """The dependencies at their lower bounds."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [need.replace(">=", "==") for need in project["dependencies"]]


def newest() -> list[str]:
    """The dependencies without bounds."""
    return [need.partition("==")[0] for need in oldest()]


def at_hand() -> list[str]:
    """Commands of Pythons from 3.11 on that start, oldest first."""
    names = [f"python3.{minor}" for minor in range(11, 20)]
    found = [name for name in names if shutil.which(name)]  # a version manager's may not start
    return [n for n in found if not subprocess.run([n, "-V"], capture_output=True).returncode]


def passes(python: str, needs: Sequence[str], name: str) -> bool:
    """Make the environment where it is missing, run the tests in it."""
    folder = ROOT / ".cache" / "matrix" / name
    own = folder / "bin" / "python"
    subprocess.run([python, "-m", "venv", folder], check=True)  # mends one half made
    install = [own, "-m", "pip", "install", "--quiet", "--upgrade", *needs, *NEEDS]
    if subprocess.run(install).returncode:
        return False
    tests = [own, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return not subprocess.run(tests, cwd=ROOT, env=environment).returncode


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pythons", nargs="+", help="commands; all from python3.11 on by default")
    parser.add_argument("--versions", nargs="+", choices=["oldest", "newest"],
                        default=["oldest", "newest"])  # fmt: skip
    args = parser.parse_args(argv)
    pythons = args.pythons or at_hand()
    runs = [(pythons[0], "oldest", oldest())] if "oldest" in args.versions else []
    if "newest" in args.versions:
        runs += [(python, "newest", newest()) for python in pythons]
    results = {f"{Path(python).name} {kind}": passes(python, needs, f"{Path(python).name}-{kind}")
               for python, kind, needs in runs}  # fmt: skip
    for name, passed in results.items():
        print(f"{name:<20}{'passed' if passed else 'FAILED'}")
    sys.exit(not all(results.values()))


if __name__ == "__main__":
    main()
