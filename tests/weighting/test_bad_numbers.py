"""NaN or Inf in one task shows, in its own step and problem, and leaves nothing in the state.

Every rule, of one problem and of many: past some thousand problems a compiler may choose loops
whose maximum drops a NaN. So the batches' programs are optimised, as users run them. What a rule
does outside of jit is in tests/weighting/test_eager.py, a batch of each kind of problem in
`python -m benchmarks.fuzz`.
"""

import functools

import jax
import numpy as np
import pytest

from mgda_jax import RowRule
from mgda_jax.weighting.base import apply_row_rule, update_weights
from tests.weighting.rules import RULES
from tests.weighting.scenarios import ALL, BAD, EPS, NAMES, Result, alone, batched, close, size_of

COUNT, TASKS, COLUMNS = 16384, 3, 8
PLACES = {  # of each kind, among so many problems
    "a square": ([100, 9001], [5000, 16000]),
    "a product": ([101, 9003], [5001, 16001]),
    "a loss": ([102, 9005], [5002, 16002]),
}


def reads(name: str) -> set[str]:
    """What it takes notice of: "row", "loss"."""
    rule = RULES[name].make(ALL)
    rows = isinstance(rule, RowRule) or rule.reads & {"gramian", "cross_gramian"}
    return ({"row"} if rows else set()) | ({"loss"} if "losses" in rule.reads else set())


@pytest.mark.parametrize(
    ("name", "bad"),
    [(n, bad) for n in NAMES for bad in BAD if bad.endswith("row") or "loss" in reads(n)],
)
@pytest.mark.parametrize("batch", [1, 1024])
def test_a_bad_step_shows_and_leaves_no_trace(name, bad, batch):
    """The second step repeats the first one without the bad row: as if there had been no other."""
    base = alone(name, ALL) if batch == 1 else batched(name, batch)["base"]
    found = alone(name, ALL, bad) if batch == 1 else batched(name, batch)[bad]
    assert not np.isfinite(found.exact[0]).any()
    assert np.all(found.finite)
    seen = bad.split()[1] in reads(name)
    if seen and not isinstance(RULES[name].make(ALL), RowRule):
        assert np.isnan(found.weights[0]).all()
    assert np.isfinite(found.exact[1]).all()
    # A rule that did not see it has rightly taken a step; a new draw is another draw.
    if (reads(name) and not seen) or RULES[name].draws == "weights":
        return
    again = Result(found.exact[1], found.half[1], found.weights[1], found.finite[1])
    fresh = Result(base.exact[0], base.half[0], base.weights[0], base.finite[0])
    close(again, fresh, size_of("base", base.weights), 16 * EPS)


@functools.cache
def answers(name):
    """Weights, or directions, and states of a large batch with a few bad problems in it."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((COUNT, TASKS, COLUMNS)).astype(np.float32)
    losses = np.exp(rng.standard_normal((COUNT, TASKS))).astype(np.float32)
    matrix = rows @ rows.swapaxes(1, 2)
    for value, k in ((np.nan, 0), (np.inf, 1)):
        matrix[PLACES["a square"][k], 0, 0] = value
        matrix[PLACES["a product"][k], 0, 1] = matrix[PLACES["a product"][k], 1, 0] = value
        rows[PLACES["a square"][k], 0, 0] = value
        losses[PLACES["a loss"][k], 1] = value
    rule = RULES[name].make(range(TASKS))

    @jax.jit
    @jax.vmap
    def step(rows, matrix, losses):
        if isinstance(rule, RowRule):
            start = rule.init(rows[0], TASKS)
            return apply_row_rule(rule, start, rows, losses=losses)
        given = {"gramian": matrix, "cross_gramian": matrix, "losses": losses}
        given["previous_losses"] = losses
        return update_weights(rule, rule.init(TASKS), num_tasks=TASKS, **given)

    found, state = step(rows, matrix, losses)
    return np.asarray(found), jax.tree.map(np.asarray, state)


@pytest.mark.parametrize("name", [n for n in NAMES if reads(n)])
def test_what_is_bad_shows_in_its_own_problem_of_a_large_batch(name):
    found, state = answers(name)
    rows = isinstance(RULES[name].make(range(TASKS)), RowRule)
    kinds = {
        "a square": "row" in reads(name),
        # `gradnorm` takes the lengths of the rows, no other product.
        "a product": "row" in reads(name) and not rows and name != "gradnorm",
        "a loss": "loss" in reads(name),
    }
    spoilt = [k for kind, read in kinds.items() if read for k in sum(PLACES[kind], [])]
    if rows:  # the other coordinates may not depend on it
        assert not np.isfinite(found[spoilt, 0]).any()
    else:
        assert np.isnan(found[spoilt]).all()
    assert np.isfinite(np.delete(found, spoilt, axis=0)).all()
    for leaf in jax.tree.leaves(state):
        assert np.isfinite(leaf).all()
