"""`python -m experiments.celeba`."""

from experiments.celeba.command import CelebaConfig, main
from experiments.trainer.config import run_main

if __name__ == "__main__":
    run_main(main, CelebaConfig, "celeba")
