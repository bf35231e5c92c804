"""`python -m experiments.pareto_set`."""

from experiments.pareto_set.command import ParetoSetConfig, main
from experiments.trainer.config import run_main

if __name__ == "__main__":
    run_main(main, ParetoSetConfig, "pareto_set")
