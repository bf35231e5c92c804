"""The toy of two losses: its published landmarks, and a short run of it."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.toy.command import ToyConfig, main
from experiments.toy.population import walk_together
from experiments.toy.problems import PROBLEMS
from experiments.toy.valleys import STARTS, losses, pareto_set
from experiments.toy.walk import neighbours, preferences, walk
from experiments.trainer.config import run_main
from experiments.trainer.methods import parse_methods
from mgda_jax import pareto

TASKS = ("L1", "L2")


def call(args: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    try:
        run_main(main, ToyConfig, "toy", args)
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    return code, *capsys.readouterr()


@jax.jit
def slopes(theta: jax.Array) -> jax.Array:
    return jax.jacrev(losses)(theta)


def test_the_minima_are_the_published_ones():
    for task, x in enumerate((7.0, -7.0)):
        before, after = (float(slopes(jnp.array([x, y]))[task, 1]) for y in (-8.435, -8.434))
        assert before < 0 < after  # the minimum in θ₂ lies between
        assert abs(float(slopes(jnp.array([x, -8.4345]))[task, 0])) < 1e-6


def test_the_pareto_set_is_the_published_arc_of_opposed_gradients():
    arc = np.asarray(pareto_set())
    assert arc.shape == (279, 2)
    for x, y in ((0.0, -8.355), (3.5, -8.376), (-3.5, -8.376)):
        np.testing.assert_allclose(np.interp(x, *arc.T), y, atol=5e-4)
    first, second = np.moveaxis(np.asarray(jax.vmap(slopes)(jnp.asarray(arc))), 1, 0)
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    assert ((first * second).sum(axis=1) / lengths).max() < -0.999


def front_gap(name: str, points: np.ndarray) -> np.ndarray:
    """How far losses are from the front's equation, by the literature's own form of it."""
    first, second = points.T[:2]
    if name in ("dtlz1", "dtlz2", "dtlz3", "dtlz4"):
        return points.sum(axis=1) - 0.5 if name == "dtlz1" else np.linalg.norm(points, axis=1) - 1
    if name in ("vlmop2", "fonseca"):
        return np.sqrt(-np.log(1 - first)) + np.sqrt(-np.log(1 - second)) - 2
    equation = {
        "paraboloids": lambda: np.sqrt(first) + np.sqrt(second) - 1,
        "vlmop1": lambda: np.sqrt(first) + np.sqrt(second) - 2,
        "zdt1": lambda: second - (1 - np.sqrt(first)),
        "zdt2": lambda: second - (1 - first**2),
        "zdt3": lambda: second - (1 - np.sqrt(first) - first * np.sin(10 * np.pi * first)),
        "zdt4": lambda: second - (1 - np.sqrt(first)),
        "zdt6": lambda: second - (1 - first**2),
    }
    return equation[name]()


@functools.cache
def found(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Losses on the Pareto set, and at points anywhere in the box and near the set."""
    problem, rng = PROBLEMS[name], np.random.default_rng(0)
    anywhere = rng.uniform(problem.lower, problem.upper, (400, len(problem.lower)))
    inside = problem.pareto_set()
    near = inside[rng.integers(len(inside), size=400)]
    near = np.clip(near + 0.05 * rng.standard_normal(near.shape), problem.lower, problem.upper)
    values = problem.values(np.concatenate([inside, anywhere, near]))
    return values[: len(inside)], values[len(inside) :]


BY_FORMULA = sorted(set(PROBLEMS) - {"valleys", "vlmop3"})


@pytest.mark.parametrize("name", BY_FORMULA)
def test_the_front_is_the_image_of_the_pareto_set_and_solves_its_equation(name):
    problem = PROBLEMS[name]
    inside = problem.pareto_set()
    assert (inside >= problem.lower - 1e-6).all() and (inside <= problem.upper + 1e-6).all()
    front, image = problem.front(401), found(name)[0].copy()
    np.testing.assert_allclose(front_gap(name, front), 0, atol=1e-7)
    # A square root or a logarithm near 1 takes half the digits.
    image[:, 0] = np.maximum(image[:, 0], 0)
    np.testing.assert_allclose(front_gap(name, image), 0, atol=2e-3)
    extent = np.ptp(front, axis=0)
    for t, length in enumerate(extent):  # neither misses an end of the other
        assert abs(image[:, t].min() - front[:, t].min()) < 0.02 * length
        assert abs(image[:, t].max() - front[:, t].max()) < 0.02 * length


@pytest.mark.parametrize("name", sorted(PROBLEMS))
def test_no_point_of_a_front_dominates_another_and_no_other_point_dominates_it(name):
    problem = PROBLEMS[name]
    front = problem.front(401)[:2000]
    worse = (front[:, None] <= front[None]).all(axis=2) & (front[:, None] < front[None]).any(axis=2)
    assert not worse.any()
    values = found(name)[1]
    margin = 0.02 * np.ptp(front, axis=0)  # what a front of some hundred points leaves open
    assert not (values[:, None] < front[None] - margin).all(axis=2).any()


def test_the_fronts_ends_are_the_published_ones():
    pieces = PROBLEMS["zdt3"].front(2001)[:, 0]
    gaps = np.flatnonzero(np.diff(pieces) > 0.01)
    ends = [pieces[0], *np.stack([pieces[gaps], pieces[gaps + 1]], 1).ravel(), pieces[-1]]
    published = [0, 0.083, 0.182, 0.258, 0.409, 0.454, 0.618, 0.653, 0.823, 0.852]
    np.testing.assert_allclose(ends, published, atol=6e-4)
    x = np.arctan(9 * np.pi) / (6 * np.pi)
    least = 1 - np.exp(-4 * x) * np.sin(6 * np.pi * x) ** 6
    np.testing.assert_allclose(PROBLEMS["zdt6"].front(3)[0, 0], least, atol=1e-9)


def test_mgda_lowers_both_losses_and_comes_nearer():
    (mgda,) = parse_methods("mgda", TASKS, 1, 1)
    short, long = (
        walk(PROBLEMS["valleys"], lambda ones, _: mgda.rule(ones), n, 1e-3) for n in (400, 4000)
    )
    assert short.paths.shape == (len(STARTS), 401, 2)
    np.testing.assert_array_equal(short.paths[:, 0], STARTS)
    assert (long.distance < short.distance).all()
    assert (long.losses[:, -1] < long.losses[:, 0]).all()


def test_walks_of_preferences_stay_in_the_box_and_find_a_convex_front(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    args = ["--problem", "zdt1", "--preferences", "8", "--methods", "grid", "--steps", "800"]
    code, out, _ = call([*args, "--runs-dir", str(tmp_path)], capsys)
    assert code == 0 and " 8 of 8 |" in out
    names = {"table.md", "paths.png", "objectives.png"}
    assert {path.name for path in (tmp_path / "toy-zdt1").iterdir()} == names


def test_points_of_a_population_come_to_the_front_and_spread():
    problem = PROBLEMS["vlmop1"]
    walks = walk_together(problem, 4, 400, 0.02)
    assert walks.losses.shape == (4, 401, 2)
    assert walks.distance.max() < 0.05
    assert pareto.wfg_hypervolume(walks.losses[:, -1], problem.reference()) > 0.8 * problem.volume()


def test_neighbours_are_the_nearest_by_angle():
    few = preferences(2, 4)
    near = neighbours(few)
    assert near.shape == (4, 2, 2)
    np.testing.assert_array_equal(near[0], few[[1, 2]])


def test_a_short_run_leaves_table_and_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    args = ["--steps", "400", "--methods", "uniform", "--runs-dir", str(tmp_path)]
    code, out, _ = call(args, capsys)
    assert code == 0 and "| uniform |  0 of 6 |" in out
    names = {"table.md", "paths.png", "objectives.png"}
    assert {path.name for path in (tmp_path / "toy").iterdir()} == names


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("--methods single", "--methods: single is not a rule on gradients of θ"),
        ("--methods mgda_ub", "--methods: mgda_ub is not a rule on gradients of θ"),
        ("--methods nosuch", "--methods: no method 'nosuch'"),
        ("--steps 3", "--steps: expected 400 to 1000000000, got 3"),
        ("--problem zdt5", "--problem: expected one of valleys, paraboloids, vlmop1"),
        ("--preferences -1", "--preferences: expected 0 to 100000, got -1"),
        ("--preferences 3", "--methods: uniform does not take the preferences given"),
        ("--methods hypervolume", "--methods: hypervolume is of many points"),
        ("--preferences 3 --methods hypervolume,hypervolume", "--methods: a method is named twice"),
        ("--learning-rate 0", "--learning-rate: expected positive numbers of float32"),
        ("--name a/b", "--name: expected the name of one folder, got 'a/b'"),
    ],
)
def test_what_is_wrong_is_one_line(args: str, message: str, capsys: pytest.CaptureFixture[str]):
    code, out, err = call(args.split(), capsys)
    assert code == 2 and out == "" and err.startswith(f"toy: {message}") and err.count("\n") == 1
