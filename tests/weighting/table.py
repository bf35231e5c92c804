"""docs/rules.md, the table of all rules: `python -m tests.weighting.table` writes it."""

import inspect
import re
from pathlib import Path

from mgda_jax import RowRule
from tests.weighting.rules import COLUMNS, RULES, blank, public_rules

PAGE = Path(__file__).parent.parent.parent / "docs" / "rules.md"
_HEAD = """\
# Rules

Written by `python -m tests.weighting.table` from the registry of the tests. A ✓ is a claim that
`tests/weighting` tests; a number stands for a cell that cannot apply and refers to its reason
below.

"""
_NOTES = """
"Reads" is what `update` needs beside the gradients that it combines; `gramian` is formed for it.
The rules that read losses take losses that are not negative (`famo`: not below its `min_losses`);
zero counts as just above zero. Where a loss of an active task is negative, NaN or Inf, all weights
are NaN and the state stays as it was. Losses that can be negative (a log density, an entropy bonus)
need a lower bound subtracted first.

`famo` takes `previous_losses`, `modo` and `sdmgrad` take `cross_gramian` as extra arguments, by
the protocols in their docstrings.
"""


def paper(name: str) -> str:
    """The first reference of a rule's docstring, on one line; "" where it has none."""
    text = inspect.getdoc(public_rules()[name]) or ""
    found = re.search(r"References:\n(.*)", text, re.DOTALL)
    if not found:
        return ""
    reference = " ".join(found[1].split())
    match = re.match(r"(.*?), [\"“](.*?),?[\"”],? ?(.*?)(\. |\.$|$)", reference)
    if not match:
        return reference
    return f"{match[1]}, *{match[2]}*, {match[3]}".rstrip(", ")


def text() -> str:
    """The page."""
    reasons: list[str] = []

    def cell(name: str, column: str) -> str:
        reason = blank(name, column)
        if reason is None:
            return "✓"
        if reason not in reasons:
            reasons.append(reason)
        return f"({reasons.index(reason) + 1})"

    lines = [f"- **{column}**: {meaning}" for column, meaning in COLUMNS.items()]
    lines += ["", f"| rule | reads | {' | '.join(COLUMNS)} |"]
    lines += [f"|---|---|{'---|' * len(COLUMNS)}"]
    for name in sorted(RULES):
        rule = RULES[name].make((0, 1, 2, 3))
        reads = ["rows"] if isinstance(rule, RowRule) else []
        reads = ", ".join(reads + sorted(rule.reads)) or "nothing"
        cells = " | ".join(cell(name, column) for column in COLUMNS)
        lines.append(f"| `{name}` | {reads} | {cells} |")
    lines += [""] + [f"{k}. {reason}" for k, reason in enumerate(reasons, 1)]
    papers = [f"- `{name}`: {paper(name)}" for name in sorted(RULES) if paper(name)]
    return _HEAD + "\n".join(lines) + "\n" + _NOTES + "\n## Papers\n\n" + "\n".join(papers) + "\n"


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(Path.cwd())}")
