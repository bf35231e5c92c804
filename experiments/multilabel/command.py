"""Multi-label classification: each label of an example is a task, up to hundreds of them.

python -m experiments.multilabel                          # 159 tags of documents, drawn by seed
python -m experiments.multilabel --data-dir yeast/        # yeast.xml, yeast-train.arff, ...
"""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Literal, Self

from experiments.errors import ExperimentError
from experiments.multilabel.data import MultilabelData, find_dataset, load_files
from experiments.multilabel.problem import label_problem
from experiments.multilabel.synthetic import load_tags
from experiments.trainer.compilation import use_compilation_cache
from experiments.trainer.config import TrainingConfig, hint
from experiments.trainer.experiment import run_and_report
from experiments.trainer.parallel import leader_first, leads

SYNTHETIC = "synthetic"


@dataclasses.dataclass(frozen=True)
class MultilabelConfig(TrainingConfig):
    """Train on every label of each example, each label being a task.

    Prints a table of mean and worst test area under the ROC curve and writes config.json,
    metrics.jsonl, results.json, table.md, scores.csv, curves.png, weights.png, cosines.png and
    directions.png into the run's folder. The same command continues a run that was stopped.

    Attributes:
      data_dir: Folder with NAME.xml, which names the labels, and NAME-train.arff with
        NAME-test.arff, or NAME.arff: the files of yeast, bibtex or CAL500 as Mulan has them.
      dataset: NAME, where the folder holds several.
      epochs: Passes over the training part.
      optimizer: SGD (with --momentum) or Adam with its own defaults.
      log_points: Lines of metrics.jsonl an epoch and run; each is a mean over its part of the
        epoch. Cosines of hundreds of tasks are tens of thousands of numbers a line.
    """

    data_dir: Annotated[Path | None, hint("159 tags drawn by seed", metavar="PATH")] = None
    dataset: Annotated[str | None, hint("the only one in --data-dir", metavar="NAME")] = None
    methods: str = "uniform,mgda_ub,mgda_ub(normalization=l2),nash_mtl_ub,uncertainty,famo"
    epochs: int = 20
    batch_size: int = 128
    learning_rate: tuple[float, ...] = (3e-3,)
    optimizer: Literal["sgd", "adam"] = "adam"
    log_points: int = 1

    def resolved(self) -> Self:
        """With the data set's name in place."""
        if self.data_dir is not None:
            dataset = find_dataset(self.data_dir, self.dataset)
        elif self.dataset in (None, SYNTHETIC):
            dataset = SYNTHETIC
        else:
            raise ExperimentError(f"--dataset: {self.dataset!r} is read from files, see --data-dir")
        name = self.name or f"multilabel-{dataset}"
        return dataclasses.replace(self, dataset=dataset, name=name)


def load(config: MultilabelConfig) -> MultilabelData:
    """The data set that the configuration names."""
    if config.data_dir is None:
        return load_tags()
    return load_files(config.data_dir, find_dataset(config.data_dir, config.dataset))


def main(config: MultilabelConfig) -> None:
    """Train what the configuration names and print its table."""
    use_compilation_cache(config)
    data = leader_first(load, config)
    if data.left_out and leads():
        print(
            f"left out, all alike in a part of the data: {', '.join(data.left_out)}",
            file=sys.stderr,
        )
    run_and_report(label_problem(data), config, "multilabel", {"left_out": list(data.left_out)})
