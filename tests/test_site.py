"""What the site needs of every rule, before `make docs` builds it."""

from pathlib import Path

import pytest

from mgda_jax import weighting

pytest.importorskip("latex2mathml")
from website import mathml, reference  # noqa: E402

RULES = sorted(weighting.rules())
PICTURES = Path(__file__).parent.parent / "docs" / "images" / "rules"


def test_every_rule_has_a_formula_that_renders():
    formulas = reference.formulas()
    assert sorted(formulas) == RULES
    for latex in formulas.values():
        assert mathml.block(latex).count("<math") == latex.count(r"\qquad") + 1


def test_every_rule_has_a_small_picture():
    assert sorted(path.stem for path in PICTURES.glob("*.png")) == RULES
    assert max(path.stat().st_size for path in PICTURES.glob("*.png")) < 40_000


def test_every_public_name_has_a_page():
    import mgda_jax

    names = {name for name, _, _ in reference.names()} | {name for name, _, _ in reference.rules()}
    for module in (mgda_jax, weighting):
        prefix = "" if module is mgda_jax else "weighting."
        modules = {"oracle", "pareto", "weighting"}
        missing = {n for n in module.__all__ if not {n, prefix + n} & names} - modules
        assert not missing


def test_a_command_without_mathml_is_refused():
    with pytest.raises(ValueError, match=r"\\lVert"):
        mathml.render(r"\Bigl\lVert x \Bigr\rVert", "block")


def test_formulas_are_found_in_a_page():
    page = '<p><span class="arithmatex">\\(a &lt; b\\)</span> and a <code>\\(x\\)</code></p>'
    made = mathml.replace(page)
    assert "<math" in made and "arithmatex" not in made and "<code>\\(x\\)</code>" in made
