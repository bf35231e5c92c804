"""Experiments of the paper and others: python -m experiments.multimnist --help."""

import sys

if sys.argv[:1] == ["-m"]:  # one of the package's commands is starting
    from experiments.errors import quiet_start

    quiet_start()
