"""docs/rules.md is what the registry says."""

from tests.weighting import table
from tests.weighting.rules import RULES


def test_the_committed_page_is_the_generated_one():
    written = table.PAGE.read_text(encoding="utf-8")
    assert written == table.text(), "docs/rules.md is stale: python -m tests.weighting.table"


def test_every_rule_of_a_paper_names_it():
    unpublished = {"fixed", "random", "scale_invariant", "uniform"}
    assert {name for name in RULES if not table.paper(name)} <= unpublished
