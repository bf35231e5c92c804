"""`python -m experiments.toy`."""

from experiments.toy.command import ToyConfig, main
from experiments.trainer.config import run_main

if __name__ == "__main__":
    run_main(main, ToyConfig, "toy")
