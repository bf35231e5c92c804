"""Physics-informed networks: differential equations whose residual and conditions compete.

python -m experiments.pinn                                        # Helmholtz, about a minute
python -m experiments.pinn --problem burgers --steps 5000 --batch-size 2000 --width 50 --layers 5
"""

import dataclasses
from typing import Annotated, Literal, Self

from experiments.errors import ExperimentError
from experiments.pinn.equations import EQUATIONS, RESIDUAL
from experiments.pinn.problem import collocation
from experiments.trainer.compilation import use_compilation_cache
from experiments.trainer.config import TrainingConfig, hint, require_count
from experiments.trainer.experiment import run_and_report

_HAND = {"helmholtz": 100, "poisson": 10, "burgers": 10, "kovasznay": 10}  # of each condition
_RULES = "mgda,upgrad,config,nash_mtl,cagrad,uncertainty,gradnorm"


@dataclasses.dataclass(frozen=True)
class PinnConfig(TrainingConfig):
    """Train a network to solve a differential equation: a loss for its residual and one for each
    condition, no data.

    Prints a table of errors against the known solution and writes config.json, metrics.jsonl,
    results.json, table.md, scores.csv, solutions.png, conflict.png, curves.png, weights.png,
    cosines.png and directions.png into the run's folder. The same command continues a run that was
    stopped.

    Attributes:
      problem: helmholtz: Δu + u = q on a square. poisson: Δu = q. burgers: a steepening wave.
        kovasznay: a steady Navier-Stokes flow.
      steps: Of training, in all.
      epochs: Parts that the steps are divided into; after each the error is measured, and the
        best solution so far is kept.
      batch_size: Points a step that the residual is computed at, new ones in every step.
      condition_points: Points a step on which each condition is imposed.
      width: Units of a hidden layer.
      layers: Hidden layers.
      learning_rate: One or several; of several, each method is reported with the one that is
        best on validation points.
    """

    problem: Literal["helmholtz", "poisson", "burgers", "kovasznay"] = "helmholtz"
    steps: int = 1000
    methods: Annotated[str, hint(f"uniform,fixed(weights=...),{_RULES}", metavar="STR")] = ""
    epochs: int = 20
    batch_size: int = 64
    condition_points: int = 32
    width: int = 32
    layers: int = 3
    learning_rate: tuple[float, ...] = (0.003, 0.01, 0.03)
    optimizer: Literal["sgd", "adam"] = "adam"
    log_points: int = 5

    def resolved(self) -> Self:
        """With the problem's own hand-tuned weights in place."""
        return dataclasses.replace(
            self,
            methods=self.methods or f"uniform,{_hand_tuned(self.problem)},{_RULES}",
            name=self.name or f"pinn-{self.problem}",
        )

    def check(self) -> None:
        """Also of the points and the network."""
        super().check()
        for flag in ("steps", "condition_points", "width", "layers"):
            require_count(flag, getattr(self, flag))
        if self.steps % self.epochs:
            raise ExperimentError(
                f"--steps: expected a multiple of the {self.epochs} --epochs, got {self.steps}"
            )


def _hand_tuned(problem: str) -> str:
    tasks = EQUATIONS[problem]().tasks
    weights = (1 if task == RESIDUAL else _HAND[problem] for task in tasks)
    return f"fixed(weights=[{','.join(map(str, weights))}])"


def main(config: PinnConfig) -> None:
    """Train what the configuration names and print its table."""
    use_compilation_cache(config)
    equation = EQUATIONS[config.problem]()
    problem = collocation(
        equation,
        examples=config.steps // config.epochs * config.batch_size,
        condition_points=config.condition_points,
        width=config.width,
        layers=config.layers,
    )
    run_and_report(problem, config, "pinn", {"dataset": config.problem})
