"""One run of the tiny problem in a process of its own: to be killed, or one of several.

python -m tests.experiments.tiny_run RUNS_DIR [EPOCHS]
"""

import os
import sys
from pathlib import Path

import jax

from experiments.trainer.config import TrainingConfig
from experiments.trainer.experiment import run_experiment
from experiments.trainer.parallel import join_processes
from tests.experiments.tiny_problem import tiny_problem

ROOT = Path(__file__).parents[2]
CONFIG = {
    "methods": "uniform,mgda,mgda_ub",
    "seeds": 2,
    "batch_size": 16,
    "checkpoint_seconds": 0.0,
    "log_points": 1,
    "name": "run",
}


def tiny_run(runs_dir: Path, epochs: int = 6) -> Path:
    """The folder of the run."""
    config = TrainingConfig(**CONFIG, runs_dir=runs_dir, epochs=epochs)
    return run_experiment(tiny_problem(num_test=16), config, "tiny", {})


if __name__ == "__main__":
    if "JAX_NUM_PROCESSES" in os.environ:
        join_processes()
    jax.config.update("jax_compilation_cache_dir", str(ROOT / ".cache" / "jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    tiny_run(Path(sys.argv[1]), *map(int, sys.argv[2:]))
