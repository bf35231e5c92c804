"""`python -m experiments.multilabel`."""

from experiments.multilabel.command import MultilabelConfig, main
from experiments.trainer.config import run_main

if __name__ == "__main__":
    run_main(main, MultilabelConfig, "multilabel")
