"""Indicators of trade-offs against their formulas in float64 numpy, and moocore where it is."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import indicators
from mgda_jax import pareto

EPS = float(np.finfo(np.float32).eps)


def some_sets(num_losses: int, sets: int = 6, count: int = 9) -> np.ndarray:
    """Sets whose points are a few hundredths apart in float32 too, with copies and ties."""
    rng = np.random.default_rng(num_losses)
    found = np.stack([indicators.random_set(rng, num_losses, count) for _ in range(sets)])
    return found.astype(np.float32).astype(np.float64)


def union_of_boxes(points: np.ndarray, reference: np.ndarray) -> float:
    """Hypervolume by inclusion and exclusion: exponential, and nothing else."""
    inside = [p for p in points if (p < reference).all()]
    total = 0.0
    for size in range(1, len(inside) + 1):
        for subset in itertools.combinations(inside, size):
            total -= (-1) ** size * np.prod(reference - np.max(subset, axis=0))
    return total


@pytest.mark.parametrize("num_losses", [2, 3, 4, 5])
def test_wfg_is_inclusion_and_exclusion(num_losses):
    reference = np.full(num_losses, 1.1)
    for points in some_sets(num_losses):
        expected = union_of_boxes(points, reference)
        assert expected > 0
        np.testing.assert_allclose(pareto.wfg_hypervolume(points, reference), expected, rtol=1e-12)
        np.testing.assert_allclose(
            pareto.wfg_hypervolume(points - 2, reference - 2), expected, rtol=1e-12
        )


def test_wfg_of_many_points_and_of_none():
    rng = np.random.default_rng(0)
    points = rng.random((3000, 3))
    points[:, 2] = 1 - points[:, :2].mean(axis=1) + 0.5 * rng.random(3000)
    in_two = pareto.wfg_hypervolume(points[:, :2], [1.0, 1.0])
    first = np.sort(points[:, 0])
    heights = 1 - np.minimum.accumulate(points[np.argsort(points[:, 0]), 1])
    np.testing.assert_allclose(in_two, np.sum(np.diff(np.append(first, 1)) * heights), rtol=1e-12)
    front = np.append(points, points, axis=0)  # more than are compared in pairs, all twice
    corner = np.array([1.0, 1.0, 1.2])
    found = pareto.wfg_hypervolume(front, corner)
    levels = np.sort(np.minimum(points[:, 2], 1.2))
    slices = [pareto.wfg_hypervolume(points[points[:, 2] <= z, :2], corner[:2]) for z in levels]
    np.testing.assert_allclose(found, np.diff(np.append(levels, 1.2)) @ slices, rtol=1e-11)
    assert pareto.wfg_hypervolume(points, [0.0, 0.0, 0.0]) == 0
    assert np.isnan(pareto.wfg_hypervolume([[np.nan, 0.0]], [1.0, 1.0]))


def test_both_hypervolumes_agree_and_the_program_holds_no_more_than_pairs():
    points = jnp.asarray(some_sets(4)[0], jnp.float32)
    program = jax.jit(pareto.hypervolume).lower(points, jnp.full(4, 1.1)).compile()
    expected = pareto.wfg_hypervolume(points, np.full(4, np.float32(1.1)))
    np.testing.assert_allclose(program(points, jnp.full(4, 1.1)), expected, rtol=64 * EPS)
    memory = program.memory_analysis().temp_size_in_bytes
    assert memory < 32 * points.size * len(points) * points.dtype.itemsize


def test_fronts_are_peeled_one_by_one():
    points = np.concatenate([some_sets(2)[1], some_sets(2)[2], [[np.nan, 0]]])
    left, expected = list(range(len(points) - 1)), np.full(len(points), -1)
    for number in itertools.count():
        front = [
            i
            for i in left
            if not any(
                (points[j] <= points[i]).all() and (points[j] < points[i]).any() for j in left
            )
        ]
        expected[front] = number
        left = [i for i in left if i not in front]
        if not left:
            break
    assert expected.max() >= 2
    np.testing.assert_array_equal(jax.jit(pareto.fronts)(points.astype(np.float32)), expected)


@jax.jit
def distances(points, front):
    return jnp.stack([pareto.igd(points, front), pareto.igd_plus(points, front)])


@jax.jit
def evenness(points, ends):
    return jnp.stack([pareto.spacing(points), pareto.spread(points, ends)])


def test_distances_to_a_front():
    points, front = some_sets(3)[:2]
    difference = points[None] - front[:, None]
    found = distances(jnp.asarray(points, jnp.float32), jnp.asarray(front, jnp.float32))
    expected = [
        np.linalg.norm(part, axis=2).min(axis=1).mean()
        for part in (difference, np.maximum(difference, 0))
    ]
    np.testing.assert_allclose(found, expected, rtol=32 * EPS)
    hidden = jnp.asarray(points, jnp.float32).at[2, 1].set(jnp.nan)
    assert np.isnan(distances(hidden, jnp.asarray(front, jnp.float32))).all()


def test_spacing_and_spread():
    x = np.array([0.9, 0.1, 0.35, 0.3], np.float32).astype(np.float64)
    points, ends = np.stack([x, 1 - x], 1), np.array([[1.0, 0.0], [0.0, 1.0]])
    gaps = np.sqrt(2) * np.array([0.2, 0.05, 0.55])  # of 0.1, 0.3, 0.35, 0.9
    nearest = 2 * np.array([0.55, 0.2, 0.05, 0.05])
    outside = 2 * 0.1 * np.sqrt(2)
    uneven = outside + np.abs(gaps - gaps.mean()).sum()
    expected = nearest.std(ddof=1), uneven / (outside + 3 * gaps.mean())
    found = evenness(jnp.asarray(points, jnp.float32), jnp.asarray(ends, jnp.float32))
    np.testing.assert_allclose(found, expected, rtol=32 * EPS)
    assert np.isnan(evenness(jnp.full((4, 2), jnp.nan), jnp.eye(2))).all()


def test_delta_m_in_both_conventions_and_groupings():
    scores, single = [[50.0, 0.6, 22.0]], [40.0, 0.5, 20.0]
    higher = [True, False, False]  # +25 %, then twice worse: 20 % and 10 %
    gain = pareto.delta_m(scores, single, higher, convention="gain")
    np.testing.assert_allclose(gain, [(25 - 20 - 10) / 3], rtol=1e-12)
    np.testing.assert_array_equal(pareto.delta_m(scores, single, higher), -gain)
    grouped = pareto.delta_m(scores, single, higher, tasks=[0, 1, 1], convention="gain")
    np.testing.assert_allclose(grouped, [(25 - 15) / 2], rtol=1e-12)


def test_mean_rank_shares_ties_and_hides_no_nan():
    scores = np.array([[3.0, 1.0], [2.0, 1.0], [3.0, 5.0]])
    found = pareto.mean_rank(scores, [True, False])
    np.testing.assert_array_equal(found, [1.5, (3 + 1.5) / 2, (1.5 + 3) / 2])
    scores[0, 0] = np.nan
    assert np.isnan(pareto.mean_rank(scores, [True, False])).all()


@jax.jit
def stationary(rows, active):
    return pareto.stationarity(rows @ rows.T, active=active)


def test_stationarity_is_the_margin_by_which_all_descend_whatever_the_losses_units():
    angle, both = 2.2, jnp.array([True, True])
    rows = np.array([[1, 0], [np.cos(angle), np.sin(angle)]], np.float32)
    for factors in ([1, 1], [1e-4, 1e5]):
        found = stationary(jnp.asarray(rows * np.float32(factors)[:, None]), both)
        np.testing.assert_allclose(found, np.cos(angle / 2), rtol=64 * EPS)
    assert stationary(jnp.asarray(rows * [[1], [0]], jnp.float32), both) == 0
    alone = stationary(jnp.asarray(rows * [[1], [0]], jnp.float32), jnp.array([True, False]))
    np.testing.assert_allclose(alone, 1, rtol=4 * EPS)
    assert np.isnan(stationary(jnp.asarray(rows * [[1], [np.nan]], jnp.float32), both))


def test_against_moocore(capsys):
    pytest.importorskip("moocore")
    assert indicators.main(["--sets", "8"]) == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pareto.fronts(jnp.ones(2)), r"points: expected shape \(N, T\)"),
        (lambda: pareto.igd(jnp.ones((1, 2)), jnp.ones((1, 3))), r"front: .*\(N, 2\)"),
        (lambda: pareto.spacing(jnp.ones((1, 2))), "spacing: expected two points"),
        (lambda: pareto.spread(jnp.ones((2, 3)), jnp.eye(2)), r"points: expected shape \(N, 2\)"),
        (lambda: pareto.spread(jnp.eye(2), jnp.ones(2)), "spread: expected points"),
        (lambda: pareto.wfg_hypervolume(np.ones((2, 1)), [1.0]), "wfg_hypervolume: expected"),
        (lambda: pareto.mean_rank([1.0], [True]), "mean_rank: expected scores"),
        (lambda: pareto.mean_rank(np.eye(2), [1, 0]), "bools higher_is_better"),
        (lambda: pareto.delta_m([1, 1], [1, 1, 1], [True] * 2), "expected a baseline"),
        (lambda: pareto.delta_m([1], [0], [True]), "expected no zero"),
        (
            lambda: pareto.delta_m([1], [1], [True], convention="up"),
            "convention must be one of",
        ),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("num_tasks", [2, 3])
def test_the_hypervolume_gradient_is_the_difference_of_volumes(num_tasks):
    """Of each point's own front; a point beyond the reference has none."""
    rng = np.random.default_rng(num_tasks)
    points, corner = rng.random((7, num_tasks)), np.full(num_tasks, 0.9)
    points[3] = 0.95
    with jax.enable_x64(True):
        found = np.asarray(jax.jit(pareto.hypervolume_gradient)(points, corner))
    numbers = np.asarray(pareto.fronts(jnp.asarray(points, jnp.float32)))
    assert len(set(numbers)) > 1
    for (i, t), slope in np.ndenumerate(found):
        volumes = []
        for step in (1e-6, -1e-6):
            moved = points.copy()
            moved[i, t] += step
            volumes.append(pareto.wfg_hypervolume(moved[numbers == numbers[i]], corner))
        np.testing.assert_allclose(slope, (volumes[0] - volumes[1]) / 2e-6, atol=1e-8)
    assert not found[3].any()
    bad = jnp.asarray(points, jnp.float32).at[0, 0].set(jnp.nan)
    assert np.isnan(pareto.hypervolume_gradient(bad, jnp.asarray(corner, jnp.float32))).all()
    with pytest.raises(ValueError, match="hypervolume_gradient: expected points"):
        pareto.hypervolume_gradient(bad, jnp.ones(num_tasks + 1))
