"""Feed the commands what is wrong with flags, files, folders, the system and the moment.

python -m tests.experiments.bad_inputs [flags] [data] [folders] [system] [signals]

Of each group it prints how many inputs were tried, how many got one line, how many a traceback,
and after how many something of a run was lost; then each of the last two.
"""

import contextlib
import sys
import tempfile
import time
from pathlib import Path

from tests.experiments.bad_inputs.groups import GROUPS, outcomes
from tests.experiments.bad_inputs.outcome import FINE, LOST, ONE_LINE, TRACEBACK, no_training


def main(names: list[str]) -> None:
    """Print the counts of each group."""
    bad = 0
    with tempfile.TemporaryDirectory() as temporary:
        for name in names or GROUPS:
            started = time.monotonic()
            folder = Path(temporary) / name
            with no_training() if name == "flags" else contextlib.nullcontext():
                found = outcomes(GROUPS[name](folder))
            kinds = [outcome.kind for outcome in found.values()]
            numbers = ", ".join(f"{k} {kinds.count(k)}" for k in (ONE_LINE, TRACEBACK, LOST))
            seconds = time.monotonic() - started
            print(f"{name}: tried {len(found)}, {numbers} ({seconds:.0f} s)", flush=True)
            for label, outcome in found.items():
                accepted = name == "flags" and outcome.kind == FINE
                if outcome.kind in (TRACEBACK, LOST) or accepted:
                    bad += 1
                    print(f"  {label}: {outcome.kind}: {outcome.said[-1500:]}", flush=True)
    sys.exit(bad > 0)


if __name__ == "__main__":
    main(sys.argv[1:])
