"""`python -m experiments.multimnist`."""

from experiments.multimnist.command import MultiMnistConfig, main
from experiments.trainer.config import run_main

if __name__ == "__main__":
    run_main(main, MultiMnistConfig, "multimnist")
