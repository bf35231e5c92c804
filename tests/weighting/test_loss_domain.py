"""One domain of losses for all rules that read them: finite and not negative, or NaN weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgda_jax import RowRule, weighting
from mgda_jax._gramian import gramian
from mgda_jax.weighting.base import apply_row_rule, update_weights
from tests.weighting.rules import RULES

MAKE = {
    **{n: functools.partial(e.make, (0, 1, 2)) for n, e in RULES.items()
       if "losses" in e.make((0, 1, 2)).reads},
    "min_norm-loss": functools.partial(weighting.min_norm, normalization="loss"),
    "min_norm-loss+": functools.partial(weighting.min_norm, normalization="loss+"),
    "moco-loss": functools.partial(weighting.moco, normalization="loss"),
    "famo-min_losses": functools.partial(weighting.famo, min_losses=(-1.0, 0.25, 0.5)),
    "cr_mogm-gls": lambda: weighting.cr_mogm(weighting.gls()),
}  # fmt: skip
BATCH = 16384
ROWS = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
LOSSES = (1.0, 0.5, 2.0)
# The loss of the second task and whether it is active.
OUTSIDE = [(-0.5, True), (-1e-30, True), (np.nan, True), (np.inf, True), (-np.inf, True)]
INSIDE = [(0.5, True), (0.0, True), (-0.5, False), (np.nan, False), (np.inf, False)]


def test_the_table_has_every_rule_that_reads_losses():
    assert {"db_mtl", "dwa", "famo", "gls", "go4align", "gradnorm", "imtl", "imtl_l",
            "scale_invariant", "stch", "uncertainty"} <= set(MAKE)  # fmt: skip


@functools.cache
def answers(name):
    """Weights (or direction) and state of every case, from one program of 16384 problems."""
    rule = MAKE[name]()
    start = rule.init(jnp.zeros(4), 3) if isinstance(rule, RowRule) else rule.init(3)
    offset = 0.25 if name == "famo-min_losses" else 0.0

    def step(loss, active):
        losses = jnp.array(LOSSES).at[1].set(loss + offset)
        mask = jnp.array([True, True, True]).at[1].set(active)
        if isinstance(rule, RowRule):
            return apply_row_rule(rule, start, jnp.asarray(ROWS), losses=losses, active=mask)
        matrix = gramian(jnp.asarray(ROWS), active=mask)
        given = {"losses": losses, "previous_losses": jnp.ones(3), "gramian": matrix}
        return update_weights(rule, start, num_tasks=3, active=mask, **given)

    cases = OUTSIDE + INSIDE
    loss, active = (np.resize(np.array(x), BATCH) for x in zip(*cases, strict=True))
    found, state = jax.jit(jax.vmap(step))(loss.astype(np.float32), active)
    return start, np.asarray(found), state


@pytest.mark.parametrize("case", range(len(OUTSIDE)))
@pytest.mark.parametrize("name", MAKE)
def test_outside_the_domain_all_weights_are_nan_and_the_state_stays(name, case):
    start, found, state = answers(name)
    places = slice(case, None, len(OUTSIDE) + len(INSIDE))
    if name == "famo-min_losses" and OUTSIDE[case][0] == -1e-30:
        pytest.skip("rounds to the bound itself")
    assert np.isnan(found[places]).all()
    for old, new in zip(jax.tree.leaves(start), jax.tree.leaves(state), strict=True):
        new = np.asarray(new)[places]
        np.testing.assert_array_equal(new, np.broadcast_to(old, new.shape))


@pytest.mark.parametrize("case", range(len(INSIDE)))
@pytest.mark.parametrize("name", MAKE)
def test_inside_it_they_are_finite_whatever_an_inactive_task_holds(name, case):
    _, found, state = answers(name)
    places = slice(len(OUTSIDE) + case, None, len(OUTSIDE) + len(INSIDE))
    assert np.isfinite(found[places]).all() and found[places].any()
    for leaf in jax.tree.leaves(state):
        assert np.isfinite(np.asarray(leaf)[places]).all()


@pytest.mark.parametrize("name", MAKE)
def test_outside_the_domain_it_is_the_same_eagerly(name):
    rule = MAKE[name]()
    losses = jnp.array([1.0, -2.0, 2.0])
    if isinstance(rule, RowRule):
        found, _ = apply_row_rule(
            rule, rule.init(jnp.zeros(4), 3), jnp.asarray(ROWS), losses=losses
        )
    else:
        given = {"losses": losses, "previous_losses": jnp.ones(3), "gramian": jnp.eye(3)}
        found, _ = update_weights(rule, rule.init(3), num_tasks=3, **given)
    assert np.isnan(found).all()


@pytest.mark.parametrize("bad", [-0.5, np.nan, np.inf])
def test_famo_sees_previous_losses_outside_the_domain(bad):
    rule = weighting.famo()
    losses = jnp.array(LOSSES)
    given = {"num_tasks": 3, "losses": losses, "previous_losses": losses.at[1].set(bad)}
    # Of the first update they are not used.
    first, state = update_weights(rule, rule.init(3), **given)
    assert np.isfinite(first).all()
    second, after = update_weights(rule, state, **given)
    assert np.isnan(second).all()
    jax.tree.map(np.testing.assert_array_equal, after, state)


@pytest.mark.parametrize("name", ["imtl_l", "uncertainty"])
def test_the_learned_scale_of_a_loss_below_zero_does_not_run_away(name):
    """Nor of a loss that stays zero."""
    rule = MAKE[name]()
    losses = jnp.array([[1.0, -0.5], [1.0, 0.0]])

    def run(losses):
        def step(state, _):
            weights, state = update_weights(rule, state, num_tasks=2, losses=losses)
            return state, weights

        return jax.lax.scan(step, rule.init(2), length=6000)

    state, weights = jax.jit(jax.vmap(run))(losses)
    np.testing.assert_array_equal(state.parameters[0], 0)
    assert np.isnan(weights[0]).all() and np.isfinite(weights[1]).all()
    assert np.abs(state.parameters[1]).max() < 75  # 1e-30 is e^−69
