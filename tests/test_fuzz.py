"""The fuzzer finds what is wrong, explains only what it can measure, and passes what is right."""

from collections import Counter

import numpy as np

from benchmarks.fuzz import fuzz, judge
from benchmarks.fuzz_problems import NAMES, POISONED, make_batch

COUNT = 5 * 2 * len(NAMES)  # two problems of each family at each number of tasks


def test_certified_rules_leave_nothing_unexplained():
    for name in ("min_norm", "coordinate_median", "uniform"):
        total, reasons, found = fuzz(name, COUNT, 0)
        assert not found
        kinds = ("rows", "gramian") if name == "min_norm" else ("rows",)
        poisoned = COUNT * sum(len(POISONED[kind]) for kind in kinds) // len(NAMES)
        assert total["problems"] == COUNT
        assert total["NaN kept"] == poisoned
        assert total["finite"] == COUNT - poisoned
        assert total["certified"] >= COUNT - poisoned - total["explained"]
        assert sum(reasons.values()) == total["explained"]


def test_a_batch_is_the_same_for_the_same_arguments():
    for one, other in zip(make_batch(48, 3, 5), make_batch(48, 3, 5), strict=True):
        np.testing.assert_array_equal(one, other)


def test_wrong_weights_and_lost_nans_are_unexplained():
    batch = make_batch(2 * len(NAMES), 3, 0)
    count = len(batch.family)
    rows = batch.rows.astype(np.float64)
    matrix = rows @ rows.swapaxes(1, 2)
    wrong = np.zeros((count, 3), np.float32)
    zero = {"kkt": np.zeros(count, np.float32)}
    total = Counter()
    bad, why = judge("min_norm", batch, matrix, wrong, np.ones(count, bool), zero, total, Counter())
    assert bad[np.isin(batch.family, [NAMES.index(f) for f in POISONED["rows"]])].all()
    assert bad[batch.family == NAMES.index("gaussian")].all()
    assert "constraint" in why(0)
    assert total["NaN kept"] == 0
