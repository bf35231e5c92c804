"""Every Python block of README.md and docs/ runs, in order, each file in one namespace."""

import re
import textwrap
from pathlib import Path
from typing import Any

import jax
import pytest

ROOT = Path(__file__).parent.parent
# A program with a command line of its own; tests/experiments/test_own_data.py runs it.
PROGRAMS = {ROOT / "docs" / "own_data.md"}
PAGES = [ROOT / "README.md", *sorted({*(ROOT / "docs").glob("**/*.md")} - PROGRAMS)]


def python_blocks(text: str) -> list[tuple[int, str]]:
    """The Python blocks of a page as (line number of the first code line, code).

    Indented ones (in lists and admonitions) and ones with options after the language count.
    """
    blocks: list[tuple[int, str]] = []
    code: list[str] | None = None
    language, start = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        fence = re.match(r"\s*```+\s*(\w*)", line)
        if fence is None and code is not None:
            code.append(line)
        elif fence and code is None:
            code, language, start = [], fence[1], number + 1
        elif fence and code is not None:
            if language == "python":
                blocks.append((start, textwrap.dedent("\n".join(code))))
            code = None
    if code is not None:
        raise ValueError(f"the block that starts at line {start} is not closed")
    return blocks


@pytest.fixture(scope="module", autouse=True)
def promotion():
    """Pages are a user's code: JAX's own promotion rules."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for line, code in python_blocks(page.read_text()):
        padded = "\n" * (line - 1) + code  # so that a traceback names the page's own line
        exec(compile(padded, str(page), "exec"), namespace)
    jax.effects_barrier()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_code_goes_by_another_name(page: Path) -> None:
    languages = set(re.findall(r"^\s*```+[ {]*\.?(\w+)", page.read_text(), re.MULTILINE))
    assert languages <= {"python", "diff", "sh", "text", "bibtex"}  # test_branch_page runs diffs
    assert "diff" not in languages or page.name == "branch.md"


def test_readme_has_blocks() -> None:
    assert len(python_blocks((ROOT / "README.md").read_text())) >= 2


def test_python_blocks_finds_code_and_its_line() -> None:
    page = "text\n\n```python\nx = 1\n\ny = 2\n```\n```text\nno\n```\n"
    page += "  ```python title='a'\n  z = 3\n  ```\n"
    assert python_blocks(page) == [(4, "x = 1\n\ny = 2"), (12, "z = 3")]


def test_python_blocks_refuses_an_open_block() -> None:
    with pytest.raises(ValueError, match="line 2 is not closed"):
        python_blocks("```python\nx = 1\n")
