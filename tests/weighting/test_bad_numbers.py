"""A NaN or Inf among very many problems shows in its own problem, and in no other.

Past some thousand problems a compiler may choose loops whose maximum drops a NaN. The rules
that call a solver are slow to compile: `python -m benchmarks.fuzz` asks the same of them.
"""

import jax
import numpy as np
import pytest

from mgda_jax.weighting.base import update_weights
from tests.weighting.rules import RULES

COUNT, TASKS = 16384, 3
MATRIX = ["aligned_mtl", "config", "imtl", "imtl_g", "krum", "modo", "ntkmtl", "sdmgrad"]
LOSSES = [
    "dwa",
    "famo",
    "gls",
    "go4align",
    "gradnorm",
    "imtl_l",
    "scale_invariant",
    "stch",
    "uncertainty",
]


def _answers(name, matrix, losses):
    rule = RULES[name].make(range(TASKS))

    @jax.jit
    @jax.vmap
    def weigh(matrix, losses):
        given = {"gramian": matrix, "cross_gramian": matrix, "losses": losses}
        given = {key: given[key] for key in rule.reads if key in given}
        given["previous_losses"] = losses
        weights, _ = update_weights(rule, rule.init(TASKS), num_tasks=TASKS, **given)
        return weights

    return np.asarray(weigh(matrix, losses))


def _problems():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((COUNT, TASKS, 8)).astype(np.float32)
    losses = np.exp(rng.standard_normal((COUNT, TASKS))).astype(np.float32)
    return rows @ rows.swapaxes(1, 2), losses


@pytest.mark.parametrize("name", MATRIX)
def test_a_bad_gramian_shows_in_a_large_batch(name):
    matrix, losses = _problems()
    spoilt = [100, 5000, 9000, 16000]
    matrix[spoilt[:2], 0, 0] = np.nan, np.inf
    matrix[spoilt[2:], 0, 1] = matrix[spoilt[2:], 1, 0] = np.nan, np.inf
    weights = _answers(name, matrix, losses)
    assert np.all(np.isnan(weights[spoilt]))
    assert np.all(np.isfinite(np.delete(weights, spoilt, axis=0)))


@pytest.mark.parametrize("name", LOSSES)
def test_a_bad_loss_shows_in_a_large_batch(name):
    matrix, losses = _problems()
    spoilt = [100, 16000]
    losses[spoilt, 1] = np.nan, np.inf
    weights = _answers(name, matrix, losses)
    assert np.all(np.isnan(weights[spoilt]))
    assert np.all(np.isfinite(np.delete(weights, spoilt, axis=0)))
