"""CelebA: forty binary attributes of a face, each a task; the paper's second experiment.

python -m experiments.celeba --methods uniform,mgda_ub                # rendered sprites
python -m experiments.celeba --dataset celeba                         # the paper's data
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal, Self

from experiments.celeba.data import AttributeData
from experiments.celeba.problem import STATISTICS_SAMPLE, attribute_problem
from experiments.celeba.sprites import load_sprites
from experiments.errors import ExperimentError
from experiments.models.resnet import SMALL, ResNetSize
from experiments.trainer.compilation import use_compilation_cache
from experiments.trainer.config import (
    FeedConfig,
    chosen,
    hint,
    one_at_a_time,
)
from experiments.trainer.experiment import run_and_report
from experiments.trainer.parallel import leader_first
from experiments.trainer.problem import Problem

# Tables 1 and 2 of the paper: mean error in per cent over the 40 attributes.
PAPER = {
    "single": [8.77],
    "uniform": [9.62],
    "uncertainty": [9.53],
    "gradnorm": [8.44],
    "mgda": [8.33],
    "mgda_ub": [8.25],
}


@dataclasses.dataclass(frozen=True)
class CelebaConfig(FeedConfig):
    """Train on 40 binary attributes of each image, each attribute being a task.

    Prints a table of mean test errors and writes config.json, metrics.jsonl, results.json,
    table.md, scores.csv, attributes.png (errors as a radar chart), curves.png, weights.png,
    cosines.png and directions.png into the run's folder. The same command continues a run that was
    stopped.

    Attributes:
      dataset: synthetic: 2048 sprites rendered by seed, 32×32, a small ResNet; no download.
        celeba: the official faces, 64×64, ResNet-18.
      data_dir: Folder with img_align_celeba.zip or img_align_celeba/, list_attr_celeba.txt and
        list_eval_partition.txt. Without it these are downloaded (1.5 GB) into --cache-dir.
      epochs: Passes over the training part.
      batch_size: Examples a step.
      learning_rate: One or several; of several, each method is reported with the one that is
        best on validation.
      optimizer: SGD (with --momentum) or Adam with its own defaults.
      seeds: How many seeds each method is trained with; the table shows mean and standard error.
      runs_at_once: How many of a method's runs (seeds, learning rates, weight vectors) one step
        trains side by side; fewer take less memory.
    """

    dataset: Literal["synthetic", "celeba"] = "synthetic"
    data_dir: Annotated[Path | None, hint("downloaded", metavar="PATH")] = None
    methods: str = "uniform,mgda_ub"
    seeds: int = 1
    epochs: Annotated[int | None, hint("synthetic 10, else 100", metavar="INT")] = None
    batch_size: Annotated[int | None, hint("synthetic 64, else 256", metavar="INT")] = None
    learning_rate: Annotated[
        tuple[float, ...] | None, hint("synthetic 2e-3, else 5e-4", metavar="[FLOAT [FLOAT ...]]")
    ] = None
    optimizer: Literal["sgd", "adam"] = "adam"
    runs_at_once: Annotated[int | None, hint("all; on a CPU 1", metavar="INT")] = None

    def resolved(self) -> Self:
        """With the data set's own defaults in place."""
        synthetic = self.dataset == "synthetic"
        return dataclasses.replace(
            self,
            epochs=chosen(self.epochs, 10 if synthetic else 100),
            batch_size=chosen(self.batch_size, 64 if synthetic else 256),
            learning_rate=chosen(self.learning_rate, (2e-3,) if synthetic else (5e-4,)),
            runs_at_once=one_at_a_time(self.runs_at_once),
            name=self.name or f"celeba-{self.dataset}",
        )


def load(config: CelebaConfig) -> AttributeData:
    """The data set that the configuration names."""
    if config.dataset == "synthetic":
        if config.data_dir is not None:
            raise ExperimentError("--data-dir: --dataset synthetic is rendered, it has no files")
        if config.feed != "memory":
            raise ExperimentError("--feed: --dataset synthetic is rendered, it is in memory")
        return load_sprites()
    # Imported here: it takes half a second that the default job has no use for.
    from experiments.celeba.builder import load_celeba

    if config.data_dir is not None and not config.data_dir.is_dir():
        raise ExperimentError(f"--data-dir: no such folder {config.data_dir}")
    most = None if config.feed == "memory" else STATISTICS_SAMPLE
    return load_celeba(config.cache_dir / "datasets", config.data_dir, most_train=most)


def fed(problem: Problem, config: CelebaConfig) -> Problem:
    """The problem, with a stream in place of the sample of the training part that `load` gave."""
    if config.feed == "memory":
        return problem
    from experiments.celeba.builder import stream_celeba

    return problem.training_on(stream_celeba(config.cache_dir / "datasets", config.workers))


def main(config: CelebaConfig) -> None:
    """Train what the configuration names and print its table."""
    use_compilation_cache(config)
    data = leader_first(load, config)
    size = SMALL if config.dataset == "synthetic" else ResNetSize()
    problem = fed(attribute_problem(data, size), config)
    paper = PAPER if config.dataset == "celeba" else {}
    facts = {"shown": "error", "easy": list(data.easy), "paper": paper}
    run_and_report(problem, config, "celeba", facts)
