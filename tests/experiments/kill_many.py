"""SIGKILL one run at many random moments, also inside saves, and compare how it ends.

python -m tests.experiments.kill_many [KILLS] [EPOCHS]
"""

import random
import sys
import tempfile
import time
from pathlib import Path

from experiments.trainer.run_folder import METRICS, RESULTS
from tests.experiments.test_processes import finish, kill_when, start, unfinished_save


def main(kills: int = 20, epochs: int = 60) -> None:
    """Print where each kill fell; exit with an error where the end differs."""
    folder = Path(tempfile.mkdtemp())
    whole, killed = folder / "whole", folder / "killed"
    finish(start(whole, str(epochs)))
    log = killed / "run" / METRICS
    for kill in range(kills):
        before = log.stat().st_size if log.exists() else 0
        delay, seen = random.random() ** 2 * 3, [0.0]

        def moment(in_save=kill % 2 == 0, before=before, delay=delay, seen=seen) -> bool:
            if not log.exists() or log.stat().st_size == before:
                return False  # still starting
            seen[0] = seen[0] or time.monotonic()
            late = time.monotonic() - seen[0] >= delay
            return late and (unfinished_save(killed) or not in_save)

        if not kill_when(start(killed, str(epochs)), moment):
            print(f"the run ended before kill {kill + 1}")
            break
        state = "inside a save" if unfinished_save(killed) else "between saves"
        print(f"kill {kill + 1}: {state}, {log.read_bytes().count(b'validation')} lines validated")
    finish(start(killed, str(epochs)))
    same = all((killed / "run" / n).read_bytes() == (whole / "run" / n).read_bytes()
               for n in (RESULTS, METRICS))  # fmt: skip
    print("the same bytes" if same else f"DIFFERENT: {folder}")
    sys.exit(not same)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
