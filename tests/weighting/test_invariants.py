"""What the rules promise of weights and directions; tests/weighting/rules.py says which does."""

import numpy as np
import pytest

from tests.weighting.rules import RULES, claiming
from tests.weighting.scenarios import (
    ALL,
    BASE,
    EPS,
    HALF,
    HUGE,
    NAMES,
    ORDER,
    SCENARIOS,
    STEPS,
    Result,
    alone,
    batched,
    close,
    size_of,
)


@pytest.mark.parametrize("name", [n for n in NAMES if RULES[n].permutes and not RULES[n].draws])
def test_permuting_the_tasks_permutes_the_weights(name):
    found, base = batched(name)["permuted"], batched(name)["base"]
    close(found, base, size_of("base", base.weights))
    np.testing.assert_allclose(
        found.weights, base.weights[:, ORDER], atol=1024 * EPS * np.abs(base.weights).max()
    )


@pytest.mark.parametrize(
    ("name", "scenario"),
    [
        (name, scenario)
        for name in NAMES
        for scenario in ("scaled", "huge", "tiny")
        if RULES[name].degree is not None and (RULES[name].extreme or scenario == "scaled")
    ],
)
def test_a_common_factor_of_the_gradients(name, scenario):
    degree = RULES[name].degree
    assert degree is not None
    factor = {"scaled": 8.0, "huge": HUGE, "tiny": 1 / HUGE}[scenario] ** degree
    found, base = batched(name)[scenario], batched(name)["base"]
    expected = Result(base.exact * factor, base.half * factor, base.weights, base.finite)
    close(found, expected, size_of("base", base.weights) * factor)


@pytest.mark.parametrize(
    ("name", "scenario"),
    [
        (name, scenario)
        for name in NAMES
        for scenario in ("base", "duplicates", "huge", "tiny")
        if RULES[name].descends and (RULES[name].extreme or scenario in ("base", "duplicates"))
    ],
)
def test_the_direction_conflicts_with_no_task(name, scenario):
    found, problem = batched(name)[scenario], SCENARIOS[scenario]
    for k in range(STEPS):
        d = np.concatenate([found.exact[k], found.half[k]])
        rows = np.concatenate(
            [np.asarray(leaf[k], np.float64).reshape(4, -1) for leaf in problem.rows.values()],
            axis=1,
        )
        norms = np.linalg.norm(rows, axis=1)
        # The direction's bfloat16 half is rounded after the rule.
        rounding = (64 * EPS + HALF) * (np.abs(found.weights[k]) @ norms)
        assert (rows @ d >= -rounding * norms).all()
        assert np.linalg.norm(d) > 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "scenario",
    ["spread", "duplicates", "zero row", "zeros", "opposed", "collinear", "huge", "tiny"],
)
def test_degenerate_gradients_give_finite_directions_and_states(name, scenario):
    found = batched(name)[scenario]
    assert np.isfinite(found.exact).all() and np.isfinite(found.half).all()
    assert np.isfinite(found.weights).all()
    assert np.all(found.finite)
    if scenario == "zeros":
        assert not found.exact.any() and not found.half.any()


@pytest.mark.parametrize("name", NAMES)
def test_where_all_gradients_are_equal_it_follows_them(name):
    found = batched(name)["unanimous"]
    for k in range(1 if RULES[name].tracks else STEPS):
        gradient = SCENARIOS["unanimous"].rows["a"][k, 0].ravel().astype(np.float64)
        factor = found.exact[k] @ gradient / (gradient @ gradient)
        assert factor > 0
        np.testing.assert_allclose(
            found.exact[k], factor * gradient, atol=64 * EPS * factor * np.abs(gradient).max()
        )


@pytest.mark.parametrize("name", NAMES)
def test_one_task_is_followed(name):
    found = alone(name, (1,))
    for k in range(1 if RULES[name].tracks else STEPS):
        gradient = BASE.rows["a"][k, 1].ravel().astype(np.float64)
        factor = found.exact[k] @ gradient / (gradient @ gradient)
        assert factor > 0
        np.testing.assert_allclose(found.exact[k], factor * gradient, rtol=64 * EPS)
        if RULES[name].single:
            np.testing.assert_allclose(found.exact[k], gradient, rtol=16 * EPS)


@pytest.mark.parametrize("name", claiming("active"))
def test_active_tasks_are_the_smaller_problem(name):
    kept = RULES[name].smaller
    found = batched(name)[f"masked {kept}"]
    left = [t for t in ALL if t not in kept]
    assert (found.weights[:, left] == 0).all()
    assert np.all(found.finite)
    if RULES[name].draws == "weights":
        full = batched(name)["base"].weights[:, kept]
        np.testing.assert_allclose(
            found.weights[:, kept], full / full.sum(axis=1, keepdims=True), rtol=32 * EPS
        )
        return
    expected = alone(name, kept)
    weights = np.zeros_like(found.weights)
    weights[:, list(kept)] = expected.weights
    np.testing.assert_allclose(
        found.weights, weights, atol=1024 * EPS * np.abs(weights).max(initial=0)
    )
    close(found, expected, size_of("base", weights))


@pytest.mark.parametrize("name", NAMES)
def test_no_active_task_gives_zero(name):
    found = batched(name)["none active"]
    assert not found.exact.any() and not found.half.any() and not found.weights.any()
    assert np.all(found.finite)


@pytest.mark.parametrize("name", claiming("vmap"))
def test_a_batch_of_problems_is_each_of_them(name):
    base = batched(name)["base"]
    close(base, alone(name, ALL), size_of("base", base.weights), 256 * EPS)
