"""`branch` against the oracle's representation mode, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgda_jax import _probe, branch, branch_probe, multitask_value_and_grad, per_task_decode
from mgda_jax import weighting as rules
from tests.branched_model import (
    BATCH,
    EPS,
    GRAMIAN_RULES,
    HEADS,
    NAMES,
    OWN,
    SHARED,
    assert_close,
    encode,
    losses_of,
)

DECODE = per_task_decode(HEADS)


def total(shared, own, probe, rule=None, active=None, batch=BATCH):
    z, statistics = encode(shared, batch)
    copies = branch(z, NAMES, rule, active=active, probe=probe)
    losses = losses_of(copies, own, batch)
    counted = losses.values() if active is None else [losses[n] for n in NAMES if active[n]]
    return sum(counted), (losses, statistics)


def oracle_of(rule):
    return multitask_value_and_grad(
        encode,
        lambda own, zs, batch: (DECODE(own, zs, batch), None),
        rule,
        3,
        has_aux=True,
        scope="shared",
    )


@pytest.mark.parametrize("rule", GRAMIAN_RULES.values(), ids=GRAMIAN_RULES)
def test_every_gramian_rule_gives_what_the_oracle_gives_for_two_steps(rule):
    oracle = oracle_of(rule)

    def both(shared, own, probe, state):
        of_branch = jax.grad(total, argnums=(0, 1, 2), has_aux=True)
        grads, (losses, statistics) = of_branch(shared, own, probe, rule)
        values, (shared_grads, own_grads), state = oracle(shared, own, BATCH, state)
        return (
            (grads[:2], losses, statistics),
            (
                (shared_grads, own_grads),
                values[0],
                values[1][0],
            ),
            grads[2],
            state,
        )

    both, probe, state = jax.jit(both), branch_probe(NAMES, rule), oracle.init()
    for factor in (1, 2):
        shared = jax.tree.map(lambda leaf, f=factor: f * leaf, SHARED)
        actual, expected, probe, state = both(shared, OWN, probe, state)
        assert_close(actual, expected)
        np.testing.assert_allclose(probe.task_weights, state.task_weights, atol=16 * EPS)
        kept = _probe.off_board(probe, rule, 3).weighting
        for a, b in zip(jax.tree.leaves(kept), jax.tree.leaves(state.weighting), strict=True):
            assert a.dtype == b.dtype
            if jnp.issubdtype(a.dtype, jnp.floating):
                np.testing.assert_allclose(a, b, rtol=16 * EPS, atol=16 * EPS)
            else:
                assert bool(jnp.all(a == b))


def test_the_report_holds_the_norm_and_the_certificate_of_the_solve():
    report = jax.grad(total, argnums=2, has_aux=True)(SHARED, OWN, branch_probe(NAMES))[0]
    assert float(report.weighting.min_norm) > 0
    assert float(report.weighting.kkt) <= 64 * EPS
    np.testing.assert_allclose(np.sum(report.task_weights), 1, atol=4 * EPS)


def loss_of_two(z, rows, **options):
    copies = branch(z, 2, **options)
    return sum(jnp.vdot(row, copy) for row, copy in zip(rows, copies, strict=True))


ROWS = jnp.array([[1.0, 0.0], [0.0, 2.0]])


def test_forward_is_the_identity_in_every_form():
    z = {"x": jnp.arange(3.0), "ids": jnp.arange(2)}
    for copy in branch(z, 2):
        jax.tree.map(np.testing.assert_array_equal, copy, z)
    named = branch(z, ["right", "left"])
    assert list(named) == ["left", "right"]
    whole = branch(z, 2, stacked=True)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, jnp.stack([b, b])), whole, z)


def test_stacked_copies_have_the_gradient_of_the_tuple():
    stacked = jax.grad(lambda z: jnp.sum(branch(z, 2, stacked=True) * ROWS))(jnp.zeros(2))
    np.testing.assert_array_equal(stacked, jax.grad(loss_of_two)(jnp.zeros(2), ROWS))
    np.testing.assert_allclose(stacked, [0.8, 0.4], rtol=4 * EPS)


def test_integers_and_keys_in_z_reach_the_heads_and_have_no_gradient():
    z = {"x": jnp.ones(2), "ids": jnp.array([1, 0]), "key": jax.random.key(0)}

    def loss(x):
        a, b = branch({**z, "x": x}, 2)
        return jnp.vdot(ROWS[0], a["x"][a["ids"]]) + jnp.vdot(ROWS[1], b["x"])

    gradient = jax.grad(loss)(z["x"])
    np.testing.assert_allclose(gradient, [0.0, 1.0], atol=4 * EPS)
    whole = jax.grad(lambda z: jnp.sum(branch(z, 2)[0]["x"]), allow_int=True)(
        {"x": jnp.ones(2), "ids": jnp.array([1, 0])}
    )
    assert whole["ids"].dtype == jax.dtypes.float0


def test_none_among_the_leaves_of_z_stays():
    a, b = branch({"x": jnp.ones(2), "cache": None}, 2)
    assert a["cache"] is None and b["cache"] is None


def test_one_task_has_its_own_gradient():
    gradient, report = jax.grad(
        lambda z, p: jnp.vdot(ROWS[1], branch(z, 1, probe=p)[0]), argnums=(0, 1)
    )(jnp.zeros(2), branch_probe(1))
    np.testing.assert_array_equal(gradient, ROWS[1])
    np.testing.assert_array_equal(report.task_weights, [1.0])


def test_a_copy_that_no_loss_reads_is_a_zero_row_and_not_an_inactive_task():
    def loss(z, probe, active=None):
        return jnp.vdot(ROWS[0], branch(z, 2, probe=probe, active=active)[0])

    gradient, report = jax.grad(loss, argnums=(0, 1))(jnp.zeros(2), branch_probe(2))
    np.testing.assert_array_equal(report.task_weights, [0.0, 1.0])
    np.testing.assert_array_equal(gradient, [0.0, 0.0])
    active = jnp.array([True, False])
    gradient, report = jax.grad(loss, argnums=(0, 1))(jnp.zeros(2), branch_probe(2), active)
    np.testing.assert_array_equal(report.task_weights, [1.0, 0.0])
    np.testing.assert_array_equal(gradient, ROWS[0])


def test_a_nan_of_an_inactive_task_stays_out():
    rows = ROWS.at[1].set(jnp.nan)
    active = jnp.array([True, False])
    np.testing.assert_array_equal(jax.grad(loss_of_two)(jnp.zeros(2), rows, active=active), ROWS[0])
    probe = branch_probe(2)
    gradient, report = jax.grad(lambda z, p: loss_of_two(z, rows, probe=p), argnums=(0, 1))(
        jnp.zeros(2), probe
    )
    assert np.isnan(gradient).all() and np.isnan(report.task_weights).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(report.weighting))


@pytest.mark.parametrize("inactive", NAMES)
def test_active_tasks_alone_decide_as_in_the_oracle(inactive):
    active = {name: name != inactive for name in NAMES}
    oracle = oracle_of(rules.min_norm())
    grads, _ = jax.grad(total, argnums=(0, 1), has_aux=True)(SHARED, OWN, None, None, active)
    _, expected, _ = oracle(SHARED, OWN, BATCH, oracle.init(), active=active)
    assert_close(grads, expected)


def test_no_active_task_gives_zero():
    gradient = jax.grad(loss_of_two)(jnp.zeros(2), ROWS, active=jnp.zeros(2, bool))
    np.testing.assert_array_equal(gradient, [0.0, 0.0])


@pytest.mark.parametrize(
    "rule, entrance",
    [
        (rules.uncertainty(), "multitask_value_and_grad or aggregate"),
        (rules.min_norm(normalization="loss"), "reads 'losses'"),
        (rules.modo(gamma=0.1), "reads 'cross_gramian'"),
        (rules.graddrop(), "mode='exact'"),
        ("min_norm", "expected a Weighting"),
    ],
)
def test_rules_that_need_more_are_refused_with_the_entrance_that_takes_them(rule, entrance):
    with pytest.raises(ValueError, match=entrance):
        branch(jnp.ones(2), 2, rule)
    with pytest.raises(ValueError, match=entrance):
        branch_probe(2, rule)


@pytest.mark.parametrize("name", ["nash_mtl", "pcgrad", "gradvac", "cr_mogm", "pcd"])
def test_a_rule_that_keeps_state_asks_for_the_probe(name):
    with pytest.raises(ValueError, match="probe=branch_probe"):
        branch(jnp.ones(2), 3, GRAMIAN_RULES[name])


def test_rules_that_read_nothing_weigh_the_representation_alone():
    gradient = jax.grad(loss_of_two)(jnp.zeros(2), ROWS, weighting=rules.fixed([0.5, 2.0]))
    np.testing.assert_array_equal(gradient, 0.5 * ROWS[0] + 2 * ROWS[1])
    step = jax.grad(
        lambda z, p: loss_of_two(z, ROWS, weighting=rules.rlw(), probe=p), argnums=(0, 1)
    )
    first, probe = step(jnp.zeros(2), branch_probe(2, rules.rlw()))
    second, _ = step(jnp.zeros(2), probe)
    np.testing.assert_allclose(first, probe.task_weights @ ROWS, rtol=4 * EPS)
    assert not np.array_equal(first, second)


def test_a_state_of_every_dtype_comes_back_bit_for_bit():
    bits = jax.random.bits(jax.random.key(1), (3,), jnp.uint32)
    state = {
        "key": jax.random.key(2),
        "keys": jax.random.split(jax.random.key(3, impl="rbg")),
        "unsigned": bits,
        "signed": bits.astype(jnp.int32),
        "small": jnp.array([-128, 127], jnp.int8),
        "flag": jnp.array([True, False]),
        "half": jnp.array(0.1, jnp.bfloat16),
        "least": jnp.finfo(jnp.float32).tiny * jnp.ones(()),
    }
    rule = rules.uniform()._replace(
        init=lambda num_tasks: state, update=lambda state, **_: (jnp.ones(2), state)
    )
    probe = branch_probe(2, rule)
    assert all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(probe))
    report = jax.grad(lambda p: loss_of_two(jnp.zeros(2), ROWS, weighting=rule, probe=p))(probe)
    back = _probe.off_board(report, rule, 2).weighting
    for name, leaf in state.items():
        assert back[name].dtype == leaf.dtype
        assert bool(jnp.all(back[name] == leaf)), name


def test_float64_stays_float64_to_its_own_precision():
    with jax.enable_x64(True):
        rows = jnp.asarray(np.array([[1.0, 0.0], [0.0, 2.0]]))
        step = jax.grad(lambda z, p: loss_of_two(z, rows, probe=p), argnums=(0, 1))
        gradient, report = step(jnp.zeros(2, jnp.float64), branch_probe(2))
        assert gradient.dtype == report.task_weights.dtype == jnp.float64
        np.testing.assert_allclose(gradient, [0.8, 0.4], rtol=4 * np.finfo(np.float64).eps)


def test_complex_leaves_are_combined_like_pairs_of_reals():
    def loss(z):
        a, b = branch(z, 2)
        return jnp.real(a) + 2 * jnp.imag(b)

    def pairs(z):
        a, b = branch(z, 2)
        return a[0] + 2 * b[1]

    combined, real = jax.grad(loss)(jnp.complex64(0)), jax.grad(pairs)(jnp.zeros(2))
    np.testing.assert_allclose([combined.real, -combined.imag], real, rtol=4 * EPS)


def test_wrong_arguments_are_named():
    z = jnp.ones(2)
    with pytest.raises(ValueError, match="num_tasks must be an int >= 1, got 0"):
        branch(z, 0)
    with pytest.raises(ValueError, match="distinct names"):
        branch(z, ("a", "a"))
    with pytest.raises(ValueError, match="active: .* the branch, .'a', 'b'., got .'a', 'c'."):
        branch(z, ("a", "b"), active={"a": True, "c": True})
    with pytest.raises(ValueError, match="upgrad: preference: .* the branch, .*, got .'a', 'c'."):
        branch(z, ("a", "b"), rules.upgrad(preference={"a": 1.0, "c": 2.0}))
    with pytest.raises(ValueError, match="expected a floating leaf, got dtypes .'int32'."):
        branch(jnp.arange(3), 2)
    with pytest.raises(ValueError, match=r"probe at 'task_weights': .* \(2,\), got float32 \(3,\)"):
        branch(z, 2, probe=branch_probe(3))
    with pytest.raises(ValueError, match="branch_probe.tasks, weighting. of the same rule"):
        branch(z, 2, probe=branch_probe(2, rules.nash_mtl()))
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), branch_probe(2))
    with pytest.raises(ValueError, match="expected float32 .*, got bfloat16"):
        branch(z, 2, probe=half)
