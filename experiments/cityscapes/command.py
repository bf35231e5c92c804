"""Cityscapes: class, instance and disparity of every pixel; the paper's third experiment.

python -m experiments.cityscapes --methods uniform,mgda_ub                   # rendered scenes
python -m experiments.cityscapes --dataset cityscapes --data-dir CITYSCAPES  # the paper's data
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal, Self

from experiments.cityscapes.data import SceneData
from experiments.cityscapes.problem import STATISTICS_SAMPLE, scene_problem
from experiments.cityscapes.street_scenes import load_street_scenes
from experiments.errors import ExperimentError
from experiments.models.dilated import SMALL, DilatedSize, dilated_resnet
from experiments.models.pretrained import load_pretrained
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

# Table 4 of the paper: disparity and instance error in pixels, mean IoU in per cent.
PAPER = {
    "single": [2.78, 11.34, 60.68],
    "uniform": [2.96, 10.38, 54.59],
    "uncertainty": [2.65, 11.54, 64.21],
    "gradnorm": [2.57, 11.31, 64.81],
    "mgda_ub": [2.54, 10.25, 66.63],
}


@dataclasses.dataclass(frozen=True)
class CityscapesConfig(FeedConfig):
    """Train on street scenes: class, offset to the instance's centre, disparity of a pixel.

    Prints a table of test scores and writes config.json, metrics.jsonl, results.json, table.md,
    scores.csv, tasks.png (bars), curves.png, weights.png, cosines.png and directions.png into the
    run's folder. The same command continues a run that was stopped.

    Attributes:
      dataset: synthetic: 160 scenes rendered by seed, 64×128, a small dilated ResNet; no
        download. cityscapes: the official scenes, 256×512, dilated ResNet-50.
      data_dir: Folder with leftImg8bit/, gtFine/ and disparity/.
      pretrained: ImageNet weights of ResNet-50 in torchvision's naming, .safetensors or .npz.
      regression: Loss of the two regressions, l1 as in the authors' code or mse as in the paper.
      epochs: Passes over the training part.
      batch_size: Examples a step.
      learning_rate: One or several; of several, each method is reported with the one that is
        best on validation.
      optimizer: SGD (with --momentum) or Adam with its own defaults.
      seeds: How many seeds each method is trained with; the table shows mean and standard error.
      runs_at_once: How many of a method's runs (seeds, learning rates, weight vectors) one step
        trains side by side; fewer take less memory.
    """

    dataset: Literal["synthetic", "cityscapes"] = "synthetic"
    data_dir: Annotated[Path | None, hint("none", metavar="PATH")] = None
    pretrained: Annotated[Path | None, hint("random weights", metavar="PATH")] = None
    regression: Literal["l1", "mse"] = "l1"
    methods: str = "uniform,mgda_ub"
    seeds: int = 1
    epochs: Annotated[int | None, hint("synthetic 10, else 250", metavar="INT")] = None
    batch_size: int = 8
    learning_rate: Annotated[
        tuple[float, ...] | None, hint("synthetic 3e-3, else 5e-4", metavar="[FLOAT [FLOAT ...]]")
    ] = None
    optimizer: Literal["sgd", "adam"] = "adam"
    runs_at_once: Annotated[int | None, hint("all; on a CPU 1", metavar="INT")] = None

    def resolved(self) -> Self:
        """With the data set's own defaults in place."""
        synthetic = self.dataset == "synthetic"
        return dataclasses.replace(
            self,
            epochs=chosen(self.epochs, 10 if synthetic else 250),
            learning_rate=chosen(self.learning_rate, (3e-3,) if synthetic else (5e-4,)),
            runs_at_once=one_at_a_time(self.runs_at_once),
            name=self.name or f"cityscapes-{self.dataset}",
        )


def load(config: CityscapesConfig) -> SceneData:
    """The data set that the configuration names."""
    if config.dataset == "synthetic":
        if config.data_dir is not None:
            raise ExperimentError("--data-dir: --dataset synthetic is rendered, it has no files")
        if config.feed != "memory":
            raise ExperimentError("--feed: --dataset synthetic is rendered, it is in memory")
        return load_street_scenes()
    # Imported here: it takes half a second that the default job has no use for.
    from experiments.cityscapes.builder import load_cityscapes

    if config.data_dir is None:
        raise ExperimentError("--data-dir: --dataset cityscapes needs the folder of its files")
    if not config.data_dir.is_dir():
        raise ExperimentError(f"--data-dir: no such folder {config.data_dir}")
    most = None if config.feed == "memory" else STATISTICS_SAMPLE
    return load_cityscapes(config.cache_dir / "datasets", config.data_dir, most_train=most)


def fed(problem: Problem, config: CityscapesConfig) -> Problem:
    """The problem, with a stream in place of the sample of the training part that `load` gave."""
    if config.feed == "memory":
        return problem
    from experiments.cityscapes.builder import stream_cityscapes

    return problem.training_on(stream_cityscapes(config.cache_dir / "datasets", config.workers))


def make_problem(data: SceneData, config: CityscapesConfig) -> Problem:
    """Data and model that the configuration names."""
    if config.dataset == "synthetic":
        if config.pretrained is not None:
            raise ExperimentError(
                "--pretrained: these are ResNet-50's, --dataset synthetic has none"
            )
        return scene_problem(data, SMALL, inside=16, regression=config.regression, eval_batch=32)
    size, pretrained = DilatedSize(), None
    if config.pretrained is not None:
        pretrained = load_pretrained(dilated_resnet(size).eval_shape(), config.pretrained)
    return scene_problem(data, size, regression=config.regression, pretrained=pretrained)


def main(config: CityscapesConfig) -> None:
    """Train what the configuration names and print its table."""
    use_compilation_cache(config)
    problem = fed(make_problem(leader_first(load, config), config), config)
    facts = {"shown": "mean IoU and L1", "paper": PAPER if config.dataset == "cityscapes" else {}}
    run_and_report(problem, config, "cityscapes", facts)
