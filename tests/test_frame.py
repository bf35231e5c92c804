"""What a user meets before any formula: the version, the public names, the imports."""

import inspect
import pkgutil
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import mgda_jax

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MODULES = sorted(m.name for m in pkgutil.walk_packages(mgda_jax.__path__, "mgda_jax."))
FOREIGN = ["flax", "tensorflow_datasets", "matplotlib", "sklearn", "scipy.optimize", "experiments"]


def public(module: ModuleType) -> dict[str, Any]:
    """The names a module gives its users, its public modules left out."""
    names = {name: getattr(module, name) for name in module.__all__}
    return {name: value for name, value in names.items() if not inspect.ismodule(value)}


PUBLIC = public(mgda_jax) | {f"weighting.{k}": v for k, v in public(mgda_jax.weighting).items()}
FUNCTIONS = {name: value for name, value in PUBLIC.items() if inspect.isfunction(value)}


def test_version_is_one() -> None:
    assert metadata.version("mgda_jax") == mgda_jax.__version__
    assert f"## {mgda_jax.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_constraints_pin_every_declared_dependency() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    shape = re.compile(r"[a-z0-9-]+==[0-9a-z.]+( ; [a-z_]+ .+)?")
    assert [pin for pin in pins if not shape.fullmatch(pin)] == []

    extras = PROJECT["optional-dependencies"]
    declared = PROJECT["dependencies"] + extras["run"] + extras["test"] + extras["docs"]
    declared = [re.split(r"[\[<>=]", item)[0] for item in declared + extras["notebooks"]]
    pinned = {pin.split("==")[0] for pin in pins}
    assert {name.replace("_", "-").lower() for name in declared} <= pinned


def test_typed() -> None:
    assert (ROOT / "mgda_jax" / "py.typed").exists()


def test_public_names_are_documented() -> None:
    undocumented = [name for name, value in PUBLIC.items() if not inspect.getdoc(value)]
    assert undocumented == []


@pytest.mark.parametrize("name", FUNCTIONS)
def test_public_functions_are_documented(name: str) -> None:
    text = inspect.getdoc(FUNCTIONS[name]) or ""
    signature = inspect.signature(FUNCTIONS[name])
    sections = ["Examples:", ">>>"]
    sections += ["Args:"] if signature.parameters else []
    sections += ["Returns:"] if signature.return_annotation is not None else []
    assert [section for section in sections if section not in text] == []


def test_the_library_imports_only_its_dependencies() -> None:
    code = (
        "import importlib, sys\n"
        f"for name in {MODULES}: importlib.import_module(name)\n"
        f"print(*(name for name in {FOREIGN} if name in sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []
