"""Where things are: a rule in the file of its name, no module behind a function of its name."""

import importlib
import pkgutil
from pathlib import Path

import pytest

import mgda_jax
from mgda_jax import weighting

LONGEST = 300  # lines


def modules() -> list[str]:
    return [m.name for m in pkgutil.walk_packages(mgda_jax.__path__, "mgda_jax.")]


@pytest.mark.parametrize("rule", sorted(weighting.rules()))
def test_a_rule_is_found_by_the_name_of_its_file(rule):
    # One method in the paper, and its two halves.
    file = "_imtl" if rule in ("imtl_g", "imtl_l") else f"_{rule}"
    module = importlib.import_module(f"mgda_jax.weighting.{file}")
    assert getattr(module, rule) is getattr(weighting, rule)


@pytest.mark.parametrize("name", modules())
def test_no_public_name_hides_a_module(name):
    parent, _, leaf = name.rpartition(".")
    assert getattr(importlib.import_module(parent), leaf) is importlib.import_module(name)


@pytest.mark.parametrize("folder", ["mgda_jax", "experiments"])
def test_no_file_is_long(folder):
    files = (Path(__file__).parent.parent / folder).rglob("*.py")
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert lengths and max(lengths.values()) <= LONGEST, max(lengths, key=lambda p: lengths[p])
