"""EPO, Pareto MTL and PBI are their papers' formulas, in float64 and by other solvers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linprog

from mgda_jax import weighting
from tests.problems import reference

TASKS, COUNT = 3, 48
EPS = float(np.finfo(np.float64).eps)


@functools.cache
def problems():
    """Rows, losses, preferences; where the preferences are the losses' reciprocals μ is zero."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((COUNT, TASKS, 5)) + 0.4 * rng.standard_normal((COUNT, 1, 5))
    losses = np.exp(rng.standard_normal((COUNT, TASKS)))
    preferences = rng.dirichlet(np.ones(TASKS), COUNT)
    preferences[::4] = 1 / losses[::4] / np.sum(1 / losses[::4], axis=1, keepdims=True)
    return rows, losses, preferences


@functools.cache
def answers(name):
    """Weights of all problems in float64, from one program."""
    make = {
        "epo": lambda c: weighting.epo(preference=c),
        "pareto_mtl": lambda c: weighting.pareto_mtl(c, jnp.eye(TASKS)),
        "pbi": lambda c: weighting.pbi(ray=c, theta=2.0, ideal=(0.0, 1e-3, 0.0)),
    }[name]

    def weigh(rows, losses, preference, inside):
        rule = make(preference)
        state = rule.init(TASKS)
        state = state._replace(inside=inside) if name == "pareto_mtl" else state
        return rule.update(state, gramian=rows @ rows.T, losses=losses)

    inside = np.arange(COUNT) % 3 == 0
    with jax.enable_x64(True):
        weights, state = jax.jit(jax.vmap(weigh))(*problems(), inside)
        assert weights.dtype == jnp.float64
        return np.asarray(weights), state


def program(gramian, losses, preference):
    """The linear program of the EPO paper: objective, rows and bounds, and μ."""
    share = preference * losses / (preference @ losses)
    mu = share @ np.log(share * TASKS)
    anchor = preference * (np.log(share * TASKS) - mu)
    along = gramian @ anchor
    if mu <= 1e-4:
        return gramian.sum(axis=0), gramian, np.zeros(TASKS), mu
    bounds = np.zeros(TASKS)
    if (along > 0).any():
        bounds = np.where(along > 0, -np.inf, along)
        bounds[share == share.max()] = 0
    kept = np.isfinite(bounds)
    return along, gramian[kept], bounds[kept], mu


def test_epo_solves_the_linear_program():
    found, report = answers("epo")
    modes = []
    for rows, losses, preference, weights in zip(*problems(), found, strict=True):
        gramian = rows @ rows.T
        objective, matrix, bounds, mu = program(gramian, losses, preference)
        best = linprog(-objective, -matrix, -bounds, np.ones((1, TASKS)), [1.0], method="highs")
        assert best.status == 0
        size = np.abs(gramian).max()
        assert weights.min() >= 0 and abs(weights.sum() - 1) <= 8 * EPS
        # HiGHS itself keeps its constraints to 1e-7.
        np.testing.assert_allclose(objective @ weights, -best.fun, atol=1e-6 * size)
        assert (matrix @ weights >= bounds - 256 * EPS * size).all()
        modes.append(mu <= 1e-4)
    assert sum(modes) == COUNT // 4
    np.testing.assert_allclose(report.residual, 0, atol=256 * EPS)


def test_epo_reports_the_relative_entropy_of_the_weighed_losses():
    _, losses, preferences = problems()
    share = preferences * losses / np.sum(preferences * losses, axis=1, keepdims=True)
    expected = np.sum(share * np.log(share * TASKS), axis=1)
    np.testing.assert_allclose(answers("epo")[1].non_uniformity, expected, atol=64 * EPS)


def test_pareto_mtl_is_the_min_norm_point_with_its_active_constraints():
    found, state = answers("pareto_mtl")
    phases = set()
    for k, (rows, losses, ray) in enumerate(zip(*problems(), strict=True)):
        toward = np.eye(TASKS) - ray / np.linalg.norm(ray)
        active = toward[toward @ losses > 0]
        inside = k % 3 == 0 or len(active) == 0
        mixed = np.concatenate([np.eye(TASKS), active]) if inside else active
        expected = reference(mixed @ rows) @ mixed @ rows
        np.testing.assert_allclose(found[k] @ rows, expected, atol=1e-9)
        assert bool(state.inside[k]) == inside
        phases.add((inside, len(active) > 0))
    assert len(phases) == 3


def test_pbi_is_the_gradient_of_both_distances():
    def objective(losses, ray):
        unit = ray / jnp.linalg.norm(ray)
        values = losses - jnp.array([0.0, 1e-3, 0.0])
        along = values @ unit
        return along + 2 * jnp.linalg.norm(values - along * unit)

    _, losses, rays = problems()
    with jax.enable_x64(True):
        expected = jax.jit(jax.vmap(jax.grad(objective)))(losses, rays)
    np.testing.assert_allclose(answers("pbi")[0], expected, atol=1e-12)


def test_pbi_on_its_ray_descends_along_it():
    ray = jnp.array([0.1, 0.7, 0.3])
    rule = weighting.pbi(ray=ray)
    weights, _ = rule.update(rule.init(3), losses=3 * ray)
    np.testing.assert_allclose(weights, ray / np.linalg.norm(ray), rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: weighting.epo(epsilon=-1.0), "epo: epsilon must be 0 or more"),
        (lambda: weighting.pbi(theta=-1.0), "pbi: theta must be 0 or more"),
        (lambda: weighting.pbi(ray=(1.0, 2.0)).update((), losses=jnp.ones(3)), "pbi: ray"),
        (
            lambda: weighting.pareto_mtl((1.0, 1.0), np.eye(3)).init(2),
            r"others must be \(K, T\) .* with T = 2, got shape \(3, 3\)",
        ),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
