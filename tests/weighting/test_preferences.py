"""Preferences of the rules that take one."""

import functools

import jax
import numpy as np
import pytest

from mgda_jax._gramian import gramian
from mgda_jax.weighting import cross_gramian
from mgda_jax.weighting.base import update_weights
from tests.quick import quick_jit
from tests.weighting.rules import RULES, blank, claiming, public_rules
from tests.weighting.scenarios import BASE, EPS, NAMES, ORDER, weigh


@pytest.mark.parametrize("name", claiming("preference"))
def test_a_preference_goes_with_its_task(name):
    """Permuting it with the tasks permutes the weights; equal ones are the default; it matters."""
    make = RULES[name].preference
    assert make is not None
    rows = np.concatenate([BASE.rows["a"][0].reshape(4, -1)], axis=1)
    preference = np.array([1.0, 3.0, 0.25, 0.5], np.float32)

    def weigh_with(preference, rows, losses):
        rule = make(preference)
        given = {"gramian": gramian(rows), "cross_gramian": cross_gramian(rows, rows)}
        given["losses"] = losses
        return update_weights(rule, rule.init(4), num_tasks=4, **given)[0]

    preferences = np.stack([preference, preference[ORDER], np.ones(4, np.float32)])
    losses = BASE.losses[0]
    both = [np.stack([x, x[ORDER], x]) for x in (rows, losses)]
    found = quick_jit(jax.vmap(weigh_with))(preferences, *both)
    chosen, permuted, equal = np.asarray(found)
    tol = 1024 * EPS * np.abs(chosen).max()
    np.testing.assert_allclose(permuted, chosen[ORDER], atol=tol)
    cross = cross_gramian(rows, rows)
    usual = weigh(name)(gramian(rows), cross, losses)
    np.testing.assert_allclose(equal, usual, atol=1024 * EPS * np.abs(usual).max())
    assert np.abs(chosen - equal).max() > 0.01 * np.abs(equal).max()
    assert np.isfinite(chosen).all()
    by_name = {"d": 0.5, "b": 3.0, "a": 1.0, "c": 0.25}
    named = quick_jit(functools.partial(weigh_with, by_name))(rows, losses)
    np.testing.assert_allclose(named, chosen, atol=tol)


@pytest.mark.parametrize("name", [n for n in NAMES if blank(n, "preference")])
def test_a_rule_without_preference_takes_none(name):
    with pytest.raises(TypeError, match="preference"):
        public_rules()[name](preference=(1.0, 2.0))
