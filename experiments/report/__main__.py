"""Table and figures of a run, from its files alone.

python -m experiments.report runs/multimnist-digits
python -m experiments.report runs/tune runs/multimnist-digits  # side by side as well
"""

import sys
from pathlib import Path

from experiments.errors import FAILED, program
from experiments.report.reading import Report
from experiments.report.writing import side_by_side, write_report


def main(args: list[str]) -> None:
    """Redraw the table and figures of each folder named; of several, compare them."""
    with program("report"):
        if not args or args[0].startswith("-"):
            print("usage: python -m experiments.report runs/NAME ...\n\n" + str(__doc__).strip())
            sys.exit(0 if args and args[0] in ("-h", "--help") else FAILED)
        for path in args:
            print(write_report(Path(path)))
        if len(args) > 1:
            print(f"\n{side_by_side([Report(Path(path)) for path in args])}")


if __name__ == "__main__":
    main(sys.argv[1:])
