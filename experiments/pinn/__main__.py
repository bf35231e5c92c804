"""`python -m experiments.pinn`."""

from experiments.pinn.command import PinnConfig, main
from experiments.trainer.config import run_main

if __name__ == "__main__":
    run_main(main, PinnConfig, "pinn")
