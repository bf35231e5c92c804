"""One network for a whole front: parameters written by a hypernetwork from the preference.

python -m experiments.pareto_set                                  # scikit-learn's digits
python -m experiments.pareto_set --dataset mnist --data-dir FOLDER
"""

import dataclasses
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import tyro
from tqdm import tqdm

from experiments.errors import ExperimentError
from experiments.models.lenet import SMALL, LeNetSize
from experiments.multimnist.command import MultiMnistConfig, load
from experiments.multimnist.networks import lenet_network
from experiments.multimnist.problem import digit_pairs
from experiments.pareto_set.hypernetwork import NetworkSet, dirichlet, hypernetwork, separate
from experiments.pareto_set.results import outcome
from experiments.pareto_set.training import MakeRule, Recipe, chunks, fit, programs
from experiments.report.writing import write_report
from experiments.toy.walk import preferences, rule_by_preference
from experiments.trainer.compilation import use_compilation_cache
from experiments.trainer.config import (
    check_factor,
    check_name,
    check_path,
    check_rates,
    chosen,
    hint,
    require_count,
)
from experiments.trainer.experiment import describe
from experiments.trainer.methods import parse_methods, split_methods
from experiments.trainer.problem import Problem, num_examples
from experiments.trainer.run_folder import TIMINGS, RunFolder
from mgda_jax import weighting

SEPARATE = "separate"
_RULES = ("grid", "tchebycheff", "pbi", "epo")  # of a preference, without memory of their own


@dataclasses.dataclass(frozen=True)
class ParetoSetConfig:
    """Train one hypernetwork for all preferences: for each it writes the parameters of a LeNet that
    names two overlapping digits.

    Prints a table of test hypervolumes and writes config.json, results.json, table.md, scores.csv
    and front.png into the run's folder. The same command continues with the method it was stopped
    at.

    Attributes:
      dataset: As in experiments.multimnist.
      data_dir: Folder with the four official .gz files of --dataset.
      methods: What the network of a preference descends: grid (the weighted sum), tchebycheff, pbi
        or epo, with options in parentheses. separate: for comparison, networks of their own, each
        trained on one weighted sum.
      separate: How many of them, for evenly spread preferences.
      points: Evenly spread preferences at which the front is measured.
      preferences: Drawn each step; each gets its part of the batch.
      alpha: Of the Dirichlet distribution that they are drawn from; 1 is even.
      width: Units of the two hidden layers.
      dropout: Rate in the network that is written.
      seeds: How many seeds each method is trained with; the table shows mean and standard error.
      epochs: Passes over the training part.
      batch_size: Examples a step.
      learning_rate: Of Adam, falling to zero along a cosine. One or several; of several, each
        method is reported with the one that is best on validation.
      runs_dir: Folder of all runs.
      name: Folder of this run in --runs-dir.
      cache_dir: Folder of prepared data sets and compiled programs.
      overwrite: Train anew where --name holds a run already.
    """

    dataset: Literal["digits", "mnist", "fashion", "mnist_fashion"] = "digits"
    data_dir: Annotated[Path | None, hint("downloaded", metavar="PATH")] = None
    methods: str = "separate,grid,tchebycheff(mu=0.1),epo"
    separate: int = 5
    points: int = 25
    preferences: int = 4
    alpha: float = 1.0
    width: int = 32
    dropout: float = 0.2
    seeds: int = 1
    epochs: Annotated[int | None, hint("digits 15, else 30", metavar="INT")] = None
    batch_size: Annotated[int | None, hint("digits 64, else 256", metavar="INT")] = None
    learning_rate: tuple[float, ...] = (0.003,)
    runs_dir: Path = Path("runs")
    name: Annotated[str, hint("made of experiment and data set")] = ""
    cache_dir: Path = Path(".cache")
    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False

    def resolved(self) -> Self:
        """With the data set's own defaults in place."""
        digits = self.dataset == "digits"
        return dataclasses.replace(
            self,
            epochs=chosen(self.epochs, 15 if digits else 30),
            batch_size=chosen(self.batch_size, 64 if digits else 256),
            name=self.name or f"pareto-set-{self.dataset}",
        )

    def check(self) -> None:
        """Raise ExperimentError naming the first flag whose value makes no sense."""
        for flag in ("separate", "points", "preferences", "width", "seeds", "epochs", "batch_size"):
            require_count(flag, getattr(self, flag))
        check_factor("alpha", self.alpha)
        check_rates(*self.learning_rate)
        if not 0 <= self.dropout < 1:
            raise ExperimentError(f"--dropout: expected a number in [0, 1), got {self.dropout}")
        assert self.batch_size is not None
        if self.batch_size % self.preferences:
            raise ExperimentError(
                f"--batch-size: expected a multiple of the {self.preferences} --preferences, got "
                f"{self.batch_size}"
            )
        check_name(self.name)
        check_path("runs_dir", self.runs_dir.absolute())


def rules(methods: str, tasks: tuple[str, ...]) -> dict[str, MakeRule]:
    """The methods and what makes the rule of a preference; ExperimentError for one of no use."""
    specs = split_methods(methods, len(tasks))
    if len(set(specs)) != len(specs):
        raise ExperimentError(f"--methods: a method is named twice in {methods!r}")
    made: dict[str, MakeRule] = {}
    for spec in specs:
        if spec == SEPARATE:
            made[spec] = weighting.fixed
            continue
        if spec.partition("(")[0] not in _RULES:
            raise ExperimentError(
                f"--methods: expected {SEPARATE} or one of {', '.join(_RULES)}, got {spec!r}"
            )
        (method,) = parse_methods(spec, tasks, 1, 1)
        made[spec] = _of_preference(rule_by_preference(method))
    return made


def _of_preference(make: Callable[..., Any]) -> MakeRule:
    return lambda preference: make(preference, preference[None])


def problem_of(config: ParetoSetConfig) -> Problem:
    """The digits and the LeNet that the configuration names."""
    source = MultiMnistConfig(
        dataset=config.dataset, data_dir=config.data_dir, cache_dir=config.cache_dir
    )
    dataset = load(source)
    size = SMALL if config.dataset == "digits" else LeNetSize()
    network = lenet_network(dataclasses.replace(size, dropout=config.dropout))
    label = "hypervolume"
    return dataclasses.replace(digit_pairs(dataset, network), score=label, score_label=label)


def main(config: ParetoSetConfig) -> None:
    """Train what the configuration names and print its table."""
    assert config.epochs is not None and config.batch_size is not None
    made = rules(config.methods, ("left", "right"))
    use_compilation_cache(config)
    problem = problem_of(config)
    examples = num_examples(problem.data["train"])
    if config.batch_size > examples:
        raise ExperimentError(
            f"--batch-size: expected at most the {examples} training examples, got "
            f"{config.batch_size}"
        )
    path = config.runs_dir / config.name
    description = describe(problem, config, "pareto_set", {})
    interval = 0.1 if sys.stderr.isatty() else 10.0  # a log file wants few lines
    trainings = len(config.learning_rate) * config.seeds * config.epochs
    with (
        RunFolder(path, description, config.overwrite) as folder,
        tqdm(
            total=len(made) * trainings, unit="epoch", dynamic_ncols=True, mininterval=interval
        ) as bar,
    ):
        done = folder.results()
        for spec, make_rule in made.items():
            bar.set_description(spec, refresh=False)
            if spec in done:
                bar.update(trainings)
            else:
                _train(problem, spec, make_rule, config, folder, bar)
        folder.finish()
    print(write_report(path))


def _train(
    problem: Problem, spec: str, make_rule: MakeRule, config: ParetoSetConfig,
    folder: RunFolder, bar: Any,
) -> None:  # fmt: skip
    assert config.epochs is not None and config.batch_size is not None
    tasks = len(problem.tasks)
    few, many = preferences(tasks, config.separate), preferences(tasks, config.points)
    front = few if spec == SEPARATE else many
    networks = _networks(problem, spec, few, config)
    made = programs(problem, networks, make_rule, config.epochs, config.batch_size)
    steps = num_examples(problem.data["train"]) // config.batch_size
    validation, started, runs = chunks(problem, "validation"), time.perf_counter(), []

    def tick(epoch: int) -> None:
        folder.log([{"method": spec, "epoch": epoch}], TIMINGS)
        bar.update()

    folder.rewind(spec, 0)
    for rate in config.learning_rate:
        for seed in range(config.seeds):
            recipe = Recipe(config.epochs, config.batch_size, rate, seed)
            trained = fit(made, recipe, validation, front, steps, tick)
            label = {"method": spec, "variant": "", "learning_rate": rate, "seed": seed}
            runs.append((label, trained))
    result, shown = outcome(problem, made, runs, front, few)
    folder.keep(spec, shown)
    seconds = time.perf_counter() - started
    folder.add_result(spec, {**result, "steps_per_epoch": steps, "seconds": seconds})


def _networks(problem: Problem, spec: str, few: np.ndarray, config: ParetoSetConfig) -> NetworkSet:
    if spec == SEPARATE:
        return separate(problem.init, few)
    draw = dirichlet(config.alpha, few.shape[1], config.preferences)
    return hypernetwork(problem.init, config.width, draw, few.shape[1])
