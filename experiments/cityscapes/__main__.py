"""`python -m experiments.cityscapes`."""

from experiments.cityscapes.command import CityscapesConfig, main
from experiments.trainer.config import run_main

if __name__ == "__main__":
    run_main(main, CityscapesConfig, "cityscapes")
