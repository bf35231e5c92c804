"""Small problems with known Pareto sets: which rule reaches them, from where.

python -m experiments.toy                                  # two losses with valleys, six rules
python -m experiments.toy --problem zdt2 --methods uniform,mgda,nash_mtl,upgrad
python -m experiments.toy --problem vlmop2 --preferences 200 --methods grid,epo,hypervolume
"""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Self

import jax.numpy as jnp
import numpy as np

from experiments.errors import ExperimentError
from experiments.report.table import markdown
from experiments.toy.figures import draw
from experiments.toy.population import walk_together
from experiments.toy.problem import ToyProblem
from experiments.toy.problems import PROBLEMS
from experiments.toy.walk import POINTS, Walk, preferences, rule_by_preference, walk
from experiments.trainer.compilation import use_compilation_cache
from experiments.trainer.config import check_name, check_rates, chosen, hint
from experiments.trainer.methods import Method, parse_methods, split_methods
from experiments.trainer.run_folder import CONFIG, TABLE, write_text
from mgda_jax import pareto, weighting

_MOST_STEPS, _MOST_PREFERENCES = 1_000_000_000, 100_000
_GIVEN = {"gramian", "losses"}  # what a walk has for a rule to read
_AT_ONCE = 2  # methods that are compiled and walked side by side
_WHOLE = ("pareto_mtl", "hypervolume")  # methods of the whole front, not of one preference


@dataclasses.dataclass(frozen=True)
class ToyConfig:
    """Small problems with known Pareto sets: which rule reaches them, and from where.

    Prints a table and writes table.md and pictures into the run's folder.

    Attributes:
      problem: valleys (the toy of CAGrad and Nash-MTL), paraboloids, vlmop1 to vlmop3, fonseca,
        zdt1 to zdt4, zdt6, dtlz1 to dtlz4.
      methods: Rules of mgda_jax.weighting, separated by commas, with options in parentheses.
      preferences: Trace the front: each method, grid (weighted sums) among them, walks once for
        each of so many preferences, all in one program; 0 for a walk from each start without any.
        pareto_mtl takes a preference's neighbours too; hypervolume is so many points that make
        the volume grow that they dominate together.
      steps: Of Adam.
      learning_rate: Of Adam.
      runs_dir: Folder of all runs.
      name: Folder of this run in --runs-dir; what is there is replaced.
      cache_dir: Folder of compiled programs.
    """

    problem: str = "valleys"
    methods: str = "uniform,mgda,pcgrad,cagrad(c=0.5),nash_mtl,upgrad"
    preferences: int = 0
    steps: Annotated[int | None, hint("that of the problem", metavar="INT")] = None
    learning_rate: Annotated[float | None, hint("that of the problem", metavar="FLOAT")] = None
    runs_dir: Path = Path("runs")
    name: Annotated[str, hint("made of experiment and problem")] = ""
    cache_dir: Path = Path(".cache")

    def resolved(self) -> Self:
        """With the problem's own numbers in place of every None."""
        if self.problem not in PROBLEMS:
            raise ExperimentError(
                f"--problem: expected one of {', '.join(PROBLEMS)}, got {self.problem!r}"
            )
        problem = PROBLEMS[self.problem]
        default = "toy" if self.problem == "valleys" else f"toy-{self.problem}"
        return dataclasses.replace(
            self,
            steps=chosen(self.steps, problem.steps),
            learning_rate=chosen(self.learning_rate, problem.learning_rate),
            name=self.name or default,
        )

    def check(self) -> None:
        """Raise ExperimentError naming the first flag whose value makes no sense."""
        assert self.steps is not None and self.learning_rate is not None
        if not POINTS <= self.steps <= _MOST_STEPS:
            raise ExperimentError(f"--steps: expected {POINTS} to {_MOST_STEPS}, got {self.steps}")
        if not 0 <= self.preferences <= _MOST_PREFERENCES:
            raise ExperimentError(
                f"--preferences: expected 0 to {_MOST_PREFERENCES}, got {self.preferences}"
            )
        check_rates(self.learning_rate)
        check_name(self.name)


def table(problem: ToyProblem, walks: dict[str, Walk]) -> str:
    """Ends of the walks as a Markdown table."""
    heads = ["method", "reached", "largest distance", "largest stationarity", "hypervolume"]
    heads += [f"mean {task}" for task in problem.tasks]
    corner, whole = problem.reference(), problem.volume()
    lines = []
    for spec, found in walks.items():
        ends = found.losses[:, -1]
        reached = f"{np.sum(found.distance < problem.reached)} of {len(ends)}"
        share = pareto.wfg_hypervolume(ends, corner) / whole
        numbers = [found.distance.max(), found.stationarity.max(), share, *ends.mean(axis=0)]
        lines.append([spec, reached, *(f"{number:.3f}" for number in numbers)])
    return markdown(heads, lines)


def main(config: ToyConfig) -> None:
    """Walk with every rule, print the table, draw the paths."""
    problem, steps, rate = PROBLEMS[config.problem], config.steps, config.learning_rate
    assert steps is not None and rate is not None
    specs = split_methods(config.methods, len(problem.tasks))
    if len(set(specs)) != len(specs):
        raise ExperimentError(f"--methods: a method is named twice in {config.methods!r}")
    if "hypervolume" in specs and not config.preferences:
        raise ExperimentError("--methods: hypervolume is of many points, so it needs --preferences")
    alone = [spec for spec in specs if spec not in _WHOLE or not config.preferences]
    methods = parse_methods(",".join(alone), problem.tasks, 1, steps) if alone else ()
    for method in methods:
        _check(method, problem, config.preferences > 0)
    folder = config.runs_dir / config.name
    if (folder / CONFIG).exists():
        raise ExperimentError(f"{folder}: holds a run of another experiment; choose another --name")
    trade_offs = preferences(len(problem.tasks), config.preferences) if config.preferences else None

    def walks_of(spec: str) -> Walk:
        if spec == "hypervolume" and trade_offs is not None:
            return walk_together(problem, len(trade_offs), steps, rate)
        if spec == "pareto_mtl" and trade_offs is not None:
            return walk(problem, weighting.pareto_mtl, steps, rate, trade_offs)
        method = methods[alone.index(spec)]
        if trade_offs is not None:
            return walk(problem, rule_by_preference(method), steps, rate, trade_offs)
        return walk(problem, lambda ones, _: method.rule(ones), steps, rate)

    folder.mkdir(parents=True, exist_ok=True)
    use_compilation_cache(config)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        walks = dict(zip(specs, pool.map(walks_of, specs), strict=True))
    text = table(problem, walks)
    notes = (
        f"reached: within {problem.reached} of the Pareto set, after {steps} steps. hypervolume: "
        "of all ends together, as a share of the front's, up to "
        f"({', '.join(f'{x:.3g}' for x in problem.reference())})."
    )
    write_text(folder / TABLE, f"# {problem.about}\n\n{text}\n\n{notes}\n")
    names = draw(problem, walks, folder)
    print(f"\n{text}\n\n{notes}\n\n{folder}: {', '.join([TABLE, *names])}")


def _check(method: Method, problem: ToyProblem, by_preference: bool) -> None:
    """Raise ExperimentError for what is no rule on the gradients of a point's losses."""
    ones = jnp.ones(len(problem.tasks))
    if method.mode == "representation" or (len(method.variants[0].name) and not by_preference):
        raise ExperimentError(f"--methods: {method.spec} is not a rule on gradients of θ")
    if by_preference:
        rule_by_preference(method)
    if missing := method.rule(ones).reads - _GIVEN:
        raise ExperimentError(
            f"--methods: {method.spec} reads {' and '.join(sorted(missing))}, which functions of "
            "a point do not have"
        )
