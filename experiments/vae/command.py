"""A variational autoencoder: reconstruction against divergence, and which rule collapses.

python -m experiments.vae                                  # scikit-learn's digits
python -m experiments.vae --methods uniform,mgda,upgrad --latent 16
"""

import dataclasses
from typing import Literal

from experiments.trainer.compilation import use_compilation_cache
from experiments.trainer.config import TrainingConfig, require_count
from experiments.trainer.experiment import run_and_report
from experiments.vae.problem import autoencoder, digits


@dataclasses.dataclass(frozen=True)
class VaeConfig(TrainingConfig):
    """Train a variational autoencoder whose reconstruction and KL divergence are two tasks.

    Prints a table of held-out losses and writes config.json, metrics.jsonl, results.json, table.md,
    scores.csv, samples.png, curves.png, weights.png, cosines.png and directions.png into the run's
    folder. The same command continues a run that was stopped.

    Attributes:
      latent: Units of the latent variable.
      width: Hidden units of encoder and decoder.
    """

    methods: str = "uniform,mgda,upgrad,dual_proj,cagrad,config,nash_mtl,imtl_g,uncertainty"
    epochs: int = 40
    batch_size: int = 50
    learning_rate: tuple[float, ...] = (0.001, 0.003, 0.01)
    optimizer: Literal["sgd", "adam"] = "adam"
    log_points: int = 1
    latent: int = 8
    width: int = 64
    name: str = "vae"

    def check(self) -> None:
        """Also of the model's size."""
        super().check()
        for flag in ("latent", "width"):
            require_count(flag, getattr(self, flag))


def main(config: VaeConfig) -> None:
    """Train what the configuration names and print its table."""
    use_compilation_cache(config)
    problem = autoencoder(digits(), config.latent, config.width)
    run_and_report(problem, config, "vae", {})
