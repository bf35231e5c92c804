"""The groups of inputs, and the outcomes of one."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tests.experiments.bad_inputs.data import data_cases
from tests.experiments.bad_inputs.flags import flag_cases
from tests.experiments.bad_inputs.folders import folder_cases
from tests.experiments.bad_inputs.outcome import Case, Outcome
from tests.experiments.bad_inputs.signals import signal_cases
from tests.experiments.bad_inputs.system import system_cases

GROUPS: dict[str, Callable[[Path], Iterator[Case]]] = {
    "flags": flag_cases,
    "data": data_cases,
    "folders": folder_cases,
    "system": system_cases,
    "signals": signal_cases,
}


def outcomes(cases: Iterable[Case], every: int = 1) -> dict[str, Outcome]:
    """The outcome of each case, or of each so many."""
    found = {}
    for number, (label, case) in enumerate(cases):
        if number % every == 0:
            found[f"{number}: {label}"] = case()
    return found
