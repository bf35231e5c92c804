"""The pages that the package writes itself: one a rule, one a public name."""

import importlib
import inspect
import re
import tomllib
from pathlib import Path
from types import ModuleType

import mgda_jax
from mgda_jax import weighting
from website.mathml import block

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
Page = tuple[str, str, str]  # title, path in docs/, text

_COST = {
    "rows": "It combines the gradients themselves: one pullback a task and all T gradients in "
    "memory, through `aggregate` or the oracle's exact mode.",
    "cross_gramian": "It reads the inner products of two independent batches and takes the "
    "direction from a third: about three times the gradients of a step.",
    "gramian": "It reads the Gramian: with `branch`, and in the oracle's representation mode, a "
    "step on the sum and the Gramian of the representation; in exact mode a pullback a task.",
    "losses": "It reads losses alone: a plain step.",
    "nothing": "It reads nothing: a plain step.",
}
_CAPTION = (
    "*On [the toy of two losses](../results/toy.md): from six starts (dots) to the ends (stars); "
    "grey: the Pareto set.*"
)


def formulas() -> dict[str, str]:
    """LaTeX by rule."""
    return tomllib.loads((Path(__file__).parent / "formulas.toml").read_text(encoding="utf-8"))


def rules() -> list[Page]:
    """A page for every rule."""
    heads, rows, reasons = _table()
    latex, found = formulas(), []
    for name, factory in sorted(weighting.rules().items()):
        cells = dict(zip(heads, rows[name], strict=True))
        reads = next(kind for kind in _COST if kind in cells["reads"])
        claims = [f"| {head} | {_reason(cell, reasons)} |" for head, cell in cells.items()]
        text = [f"# {name}", "", block(latex[name]), ""]
        if (DOCS / "images" / "rules" / f"{name}.png").exists():
            text += [
                f"![paths of {name} on the toy](../images/rules/{name}.png){{ width=360 }}",
                "",
            ]
            text += ["*On [the toy of two losses](../results/toy.md): from six starts (dots) to "
                     "the ends (stars); grey: the Pareto set.*", ""]  # fmt: skip
        text += [f"**Cost.** {_COST[reads]}{_measured(name)}", ""]
        text += ["| claim | |", "|---|---|", *claims, ""]
        text += [f"::: mgda_jax.weighting.{name}", ""]
        text += [f"::: {state}" for state in _states(factory)]
        found.append((name, f"rules/{name}.md", "\n".join(text) + "\n"))
    return found


def names() -> list[Page]:
    """A page for every other public name, those of public modules included."""
    return _names(mgda_jax)


def changelog() -> str:
    """CHANGELOG.md, whose links start in the repository's root."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    return text.replace("docs/rules.md", "[the rules](rules.md)")


def pages_outside(nav: str) -> dict[str, list[str]]:
    """Pages of docs/ whose path is not in the navigation, by the section they go to."""
    paths = [str(path.relative_to(DOCS)) for path in sorted(DOCS.glob("**/*.md"))]
    outside = [path for path in paths if f"'{path}'" not in nav]
    results = [path for path in outside if path.startswith("results/")]
    return {"Results": results, "How to": [path for path in outside if path not in results]}


def _names(module: ModuleType) -> list[Page]:
    folder = "/".join(["reference", *module.__name__.split(".")[1:]])
    found = []
    for name in sorted(module.__all__):
        thing = getattr(module, name)
        if isinstance(thing, ModuleType):
            found += _names(thing)
        elif name not in weighting.rules():
            short = f"{module.__name__}.{name}".removeprefix("mgda_jax.")
            text = f"::: {module.__name__}.{name}\n    options: {{heading_level: 1}}\n"
            found.append((short, f"{folder}/{name}.md", text))
    return found


def _states(factory: object) -> list[str]:
    """The states and reports that the rule's own module defines."""
    module = importlib.import_module(inspect.unwrap(factory).__module__)  # pyright: ignore
    return [
        f"{module.__name__}.{name}"
        for name, thing in vars(module).items()
        if inspect.isclass(thing)
        and name.endswith(("State", "Report"))
        and thing.__module__ == module.__name__
    ]


def _table() -> tuple[list[str], dict[str, list[str]], list[str]]:
    """docs/rules.md: heads, cells by rule, reasons."""
    page = (DOCS / "rules.md").read_text(encoding="utf-8")
    lines = [[cell.strip() for cell in line.strip("|").split("|")]
             for line in page.splitlines() if line.startswith("|")]  # fmt: skip
    rows = {line[0].strip("`"): line[1:] for line in lines[2:]}
    return lines[0][1:], rows, re.findall(r"^\d+\. (.*)$", page, re.MULTILINE)


def _reason(cell: str, reasons: list[str]) -> str:
    number = re.fullmatch(r"\((\d+)\)", cell)
    return f"no: {reasons[int(number[1]) - 1]}" if number else cell.replace("✓", "yes")


def _measured(name: str) -> str:
    """What docs/results/solve_times.md says of it; "" where it says nothing."""
    page = DOCS / "results" / "solve_times.md"
    if not page.exists():
        return ""
    lines = [line.strip("|").split("|") for line in page.read_text(encoding="utf-8").splitlines()]
    heads = next(line for line in lines if line[0].strip() == "rule")
    for line in lines:
        if line[0].strip() == name:
            times = ", ".join(f"{t.strip()} ms at T ={head.split('=')[1].rstrip()}"
                              for head, t in zip(heads[1:], line[1:], strict=True))  # fmt: skip
            return f" [Solving](../results/solve_times.md) for the weights: {times}."
    return ""
