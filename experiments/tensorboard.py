"""`python -m experiments.tensorboard runs/NAME`."""

import sys

from experiments.report.tensorboard import main

if __name__ == "__main__":
    main(sys.argv[1:])
