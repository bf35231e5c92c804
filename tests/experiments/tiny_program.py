"""The tiny problem behind the boundary of a command, with every flag of the trainer.

python -m tests.experiments.tiny_program --epochs 6 --runs-dir RUNS
"""

from experiments.errors import quiet_start

quiet_start()

import dataclasses  # noqa: E402
import sys  # noqa: E402

from experiments.trainer.compilation import use_compilation_cache  # noqa: E402
from experiments.trainer.config import TrainingConfig, run_main  # noqa: E402
from experiments.trainer.experiment import run_and_report  # noqa: E402
from tests.experiments.tiny_problem import tiny_problem  # noqa: E402


@dataclasses.dataclass(frozen=True)
class TinyConfig(TrainingConfig):
    """Two noisy labels of points."""

    methods: str = "uniform,mgda"
    seeds: int = 2
    epochs: int = 3
    batch_size: int = 16
    checkpoint_seconds: float = 0.0
    log_points: int = 1
    name: str = "run"


def main(config: TinyConfig) -> None:
    """Train and report."""
    use_compilation_cache(config)
    run_and_report(tiny_problem(num_test=16), config, "tiny", {})


def call(args: list[str]) -> None:
    """The command."""
    run_main(main, TinyConfig, "tiny", args)


if __name__ == "__main__":
    call(sys.argv[1:])
