"""MultiMNIST: name both of two overlapping digits; the paper's first experiment.

python -m experiments.multimnist                                  # scikit-learn's digits
python -m experiments.multimnist --dataset mnist --epochs 100     # the paper's data
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal, Self

from experiments.errors import ExperimentError
from experiments.models.lenet import SMALL, LeNetSize
from experiments.multimnist.data import Dataset
from experiments.multimnist.digits import load_digits
from experiments.multimnist.networks import NETWORKS
from experiments.multimnist.problem import digit_pairs
from experiments.trainer.compilation import use_compilation_cache
from experiments.trainer.config import (
    TrainingConfig,
    check_factor,
    chosen,
    hint,
    one_at_a_time,
)
from experiments.trainer.experiment import run_and_report
from experiments.trainer.parallel import leader_first

# Table 3 of the paper: accuracy in per cent, left and right.
PAPER = {
    "single": [97.23, 95.90],
    "uniform": [96.46, 94.99],
    "uncertainty": [96.47, 95.29],
    "gradnorm": [96.27, 94.84],
    "mgda_ub": [97.26, 95.90],
}


@dataclasses.dataclass(frozen=True)
class MultiMnistConfig(TrainingConfig):
    """Train on images of two overlapping digits, each digit's class being a task.

    Prints a table of test accuracies and writes config.json, metrics.jsonl, results.json, table.md,
    scores.csv, accuracy_profile.png, curves.png, weights.png, cosines.png and directions.png into
    the run's folder. The same command continues a run that was stopped.

    Attributes:
      dataset: digits: the 1797 images that ship with scikit-learn, no download, a small LeNet.
        mnist: the paper's MultiMNIST and LeNet. fashion: the same of Fashion-MNIST.
        mnist_fashion: a digit on the left, a piece of clothing on the right.
      architecture: How the tasks share a network. lenet: the paper's encoder with two heads. mmoe,
        snr, multi_camera: experts, routed sub-networks, one backbone on three strips of the
        image. cross_stitch, soft_sharing: a network per task, mixed or tied, so no method
        has the suffix _ub. All but lenet and multi_camera are dense.
      data_dir: Folder with the four official .gz files of --dataset, or with a folder mnist and
        a folder fashion of them.
      loss_units: What the left and the right loss are multiplied by in training, as if one were
        given in another unit.
      epochs: Passes over the training part.
      batch_size: Examples a step.
      learning_rate: One or several; of several, each method is reported with the one that is
        best on validation.
      runs_at_once: How many of a method's runs (seeds, learning rates, weight vectors) one step
        trains side by side; fewer take less memory.
    """

    dataset: Literal["digits", "mnist", "fashion", "mnist_fashion"] = "digits"
    architecture: Literal[
        "lenet", "cross_stitch", "mmoe", "multi_camera", "snr", "soft_sharing"
    ] = "lenet"
    data_dir: Annotated[Path | None, hint("downloaded", metavar="PATH")] = None
    loss_units: tuple[float, float] = (1.0, 1.0)
    epochs: Annotated[int | None, hint("digits 15, else 100", metavar="INT")] = None
    batch_size: Annotated[int | None, hint("digits 64, else 256", metavar="INT")] = None
    learning_rate: Annotated[
        tuple[float, ...] | None,
        hint("digits 0.05, else 0.02 0.05 0.1", metavar="[FLOAT [FLOAT ...]]"),
    ] = None
    runs_at_once: Annotated[int | None, hint("all; on a CPU 1 but for digits", metavar="INT")] = (
        None
    )

    def resolved(self) -> Self:
        """With the data set's own defaults in place."""
        digits = self.dataset == "digits"
        other = "" if self.architecture == "lenet" else f"-{self.architecture}"
        return dataclasses.replace(
            self,
            epochs=chosen(self.epochs, 15 if digits else 100),
            batch_size=chosen(self.batch_size, 64 if digits else 256),
            learning_rate=chosen(self.learning_rate, (0.05,) if digits else (0.02, 0.05, 0.1)),
            runs_at_once=self.runs_at_once if digits else one_at_a_time(self.runs_at_once),
            name=self.name or f"multimnist-{self.dataset}{other}",
        )

    def check(self) -> None:
        """Also of the units."""
        super().check()
        for unit in self.loss_units:
            check_factor("loss_units", unit)


def load(config: MultiMnistConfig) -> Dataset:
    """The data set that the configuration names."""
    if config.dataset == "digits":
        if config.data_dir is not None:
            raise ExperimentError("--data-dir: --dataset digits ships with scikit-learn, has none")
        return load_digits()
    # Imported here: it takes half a second that the default job has no use for.
    from experiments.multimnist.builder import load_multi_mnist

    if config.data_dir is not None and not config.data_dir.is_dir():
        raise ExperimentError(f"--data-dir: no such folder {config.data_dir}")
    return load_multi_mnist(config.dataset, config.cache_dir / "datasets", config.data_dir)


def main(config: MultiMnistConfig) -> None:
    """Train what the configuration names and print its table."""
    use_compilation_cache(config)
    dataset = leader_first(load, config)
    size = SMALL if config.dataset == "digits" else LeNetSize()
    network = NETWORKS[config.architecture](size)
    problem = digit_pairs(dataset, network, config.loss_units)
    paper = config.dataset == "mnist" and config.architecture == "lenet"
    facts = {"paper": PAPER if paper and config.loss_units == (1.0, 1.0) else {}}
    run_and_report(problem, config, "multimnist", facts)
