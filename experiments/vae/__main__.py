"""`python -m experiments.vae`."""

from experiments.trainer.config import run_main
from experiments.vae.command import VaeConfig, main

if __name__ == "__main__":
    run_main(main, VaeConfig, "vae")
