"""The oracle against dense Jacobians and a float64 QP."""

import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgda_jax import check_decode, multitask_value_and_grad, per_task_decode
from mgda_jax.oracle import Exact, Lean, PerTask, Representation
from mgda_jax.weighting import fixed, min_norm, trimmed_mean, uniform
from tests.oracle_model import (
    BATCH,
    DECODE,
    EPS,
    HEADS,
    LOSSES,
    NUM_TASKS,
    OWN,
    OWN_GRADS,
    ROWS,
    SHARED,
    TOL,
    Z_ROWS,
    close,
    encode,
    losses_of,
)
from tests.problems import reference
from tests.pytrees import flat_rows


def combined(rows, weights):
    return jax.tree.map(lambda leaf: jnp.tensordot(jnp.asarray(weights, leaf.dtype), leaf, 1), rows)


MGDA = min_norm()  # one object, so that its programs are shared


@functools.cache
def compiled(rule, decode, **options):
    oracle = multitask_value_and_grad(encode, decode, rule, NUM_TASKS, **options)
    return jax.jit(oracle), oracle.init(SHARED)


def call(rule, own=OWN, decode=DECODE, batch=BATCH, shared=SHARED, extra=None, **options):
    step, state = compiled(rule, decode, **options)
    return step(shared, own, batch, state, **(extra or {}))


MODES = {
    "representation": dict(mode="representation"),
    "exact": dict(mode="exact"),
    "lean": dict(mode=Lean()),
}
MAPPED = {"mapped": dict(mode=Exact(pullbacks="map"))}


@pytest.mark.parametrize("options", (MODES | MAPPED).values(), ids=MODES | MAPPED)
@pytest.mark.parametrize("scope", ["shared", "all"])
@pytest.mark.parametrize("rule", [MGDA, min_norm(normalization="loss+")], ids=["none", "loss+"])
def test_min_norm_against_dense(options, scope, rule):
    (losses, aux), (shared, own), state = call(rule, scope=scope, **options)
    read = Z_ROWS if options["mode"] == "representation" else ROWS
    scale = np.ones(NUM_TASKS)
    if rule is not MGDA:
        scale = np.asarray(LOSSES, np.float64) * np.linalg.norm(flat_rows(read), axis=1)
    alpha = reference(flat_rows(read) / scale[:, None]) / scale
    weights = alpha / alpha.sum()
    assert aux is None
    close(jnp.stack(list(losses.values())), LOSSES)
    np.testing.assert_allclose(state.task_weights, weights, atol=4 * TOL)
    close(shared, combined(ROWS, weights), 4 * TOL)
    factors = dict(zip("abc", weights if scope == "all" else np.ones(NUM_TASKS), strict=True))
    expected = {
        name: jax.tree.map(lambda g, f=f: f * g, OWN_GRADS[name]) for name, f in factors.items()
    }
    close(own, expected, 4 * TOL)


@pytest.mark.parametrize("mode", ["representation", "exact"])
def test_loss_weights_are_the_gradient_of_the_weighted_sum(mode):
    weights = np.array([0.5, 2.0, 3.0], np.float32)
    _, (shared, own), state = call(fixed(weights), mode=mode)
    expected = jax.grad(lambda s, o: weights @ losses_of(s, o), argnums=(0, 1))(SHARED, OWN)
    close((shared, own), expected)
    np.testing.assert_array_equal(state.task_weights, weights)
    _, (shared, own), _ = call(fixed(weights), mode=mode, scope="shared")
    close(shared, expected[0])
    close(own, OWN_GRADS)


def stacked_decode(own, zs, batch):
    out = jnp.einsum("tbd,td->tb", zs["hidden"], own["w"], precision="highest")
    out = out + own["b"][:, None]
    extra = jnp.where(jnp.arange(NUM_TASKS)[:, None] == 0, jnp.sum(zs["input"], axis=2), 0.0)
    return jnp.mean((out + extra - batch["y"]) ** 2, axis=1)


STACKED_OWN = jax.tree.map(lambda *leaves: jnp.stack(leaves), *OWN.values())


@pytest.mark.parametrize("own_layout", [None, "stacked"])
def test_stacked_heads_give_what_separate_heads_give(own_layout):
    for options in MODES.values():
        for scope in ("shared", "all"):
            expected = call(MGDA, scope=scope, **options)
            actual = call(
                MGDA,
                STACKED_OWN,
                stacked_decode,
                scope=scope,
                own_layout=own_layout,
                **options,
            )
            close(actual[1][0], expected[1][0], 4 * TOL)
            own = jax.tree.map(lambda *leaves: jnp.stack(leaves), *expected[1][1].values())
            close(actual[1][1], own, 4 * TOL)


@pytest.mark.parametrize("mode", ["representation", "exact"])
def test_tuple_of_heads(mode):
    decode = per_task_decode(list(HEADS.values()))
    (losses, _), (shared, own), _ = call(MGDA, tuple(OWN.values()), decode, mode=mode)
    expected = call(MGDA, mode=mode)
    close(losses, tuple(expected[0][0].values()))
    close(shared, expected[1][0])
    close(own, tuple(expected[1][1].values()))


@pytest.mark.parametrize("options", MODES.values(), ids=MODES)
@pytest.mark.parametrize("scope", ["shared", "all"])
@pytest.mark.parametrize("rule", [MGDA, uniform(reduction="mean")], ids=["mgda", "mean"])
def test_active_tasks_are_the_smaller_problem_and_nan_stays_out(options, scope, rule):
    batch = BATCH | {"y": BATCH["y"].at[1].set(jnp.nan)}
    active = jnp.array([True, False, True])
    _, (shared, own), state = call(
        rule, batch=batch, extra=dict(active=active), scope=scope, **options
    )
    pair = {name: HEADS[name] for name in "ac"}
    oracle = multitask_value_and_grad(
        encode, per_task_decode(pair), rule, 2, scope=scope, **options
    )
    own_pair = {name: OWN[name] for name in "ac"}
    _, (shared_pair, own_expected), state_pair = jax.jit(oracle)(
        SHARED, own_pair, BATCH, oracle.init()
    )
    close(shared, shared_pair, 4 * TOL)
    close({name: own[name] for name in "ac"}, own_expected, 4 * TOL)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(own["b"]))
    np.testing.assert_allclose(
        np.asarray(state.task_weights)[[0, 2]], state_pair.task_weights, atol=4 * TOL
    )
    assert state.task_weights[1] == 0


@pytest.mark.parametrize("options", MODES.values(), ids=MODES)
def test_no_active_task_gives_zero(options):
    _, grads, state = call(MGDA, extra=dict(active=jnp.zeros(3, bool)), **options)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(grads))
    assert not np.any(state.task_weights)


@pytest.mark.parametrize("options", MODES.values(), ids=MODES)
@pytest.mark.parametrize("loss_scale", [3.0])  # no power of two: rounding shows
def test_loss_scale_cancels(options, loss_scale):
    for rule in (MGDA, fixed([1.0, 2.0, 3.0])):
        expected = call(rule, **options)
        actual = call(rule, extra=dict(loss_scale=jnp.float32(loss_scale)), **options)
        close(actual[0], expected[0])
        close(actual[1], expected[1], 4 * TOL)
        close(actual[2].task_weights, expected[2].task_weights, 4 * TOL)


SCALED = per_task_decode(
    {name: lambda own, z, b, h=h: h(own, z, b) * b["scale"] for name, h in HEADS.items()}
)


@pytest.mark.parametrize("scale", [1e-26, 1e26])
@pytest.mark.parametrize("options", MODES.values(), ids=MODES)
def test_losses_of_any_magnitude(options, scale):
    """Gradients of the squared error are about 10 times its value: 1e±27 in the rows."""
    expected = call(MGDA, **options)
    actual = call(MGDA, decode=SCALED, batch=BATCH | {"scale": jnp.float32(scale)}, **options)
    close(actual[2].task_weights, expected[2].task_weights, 4 * TOL)
    close(jax.tree.map(lambda g: g / scale, actual[1]), expected[1], 4 * TOL)


def test_representation_mode_is_one_encoder_pullback():
    """No (T, parameters) array exists in MGDA-UB's program, and no second forward pass."""
    oracle = multitask_value_and_grad(encode, DECODE, min_norm(), NUM_TASKS)
    text = jax.jit(oracle).lower(SHARED, OWN, BATCH, oracle.init()).as_text()
    assert "3x4x5xf32" not in text
    assert text.count("stablehlo.tanh") == 1
    exact = multitask_value_and_grad(encode, DECODE, min_norm(), NUM_TASKS, mode="exact")
    assert "3x4x5xf32" in jax.jit(exact).lower(SHARED, OWN, BATCH, exact.init()).as_text()


def test_lean_does_not_keep_all_gradients():
    """Twelve dense layers, eight tasks: XLA's own count of the temporaries, by compiling only."""
    shared = [jax.ShapeDtypeStruct((128, 128), jnp.float32)] * 12
    own = jax.ShapeDtypeStruct((8, 128), jnp.float32)
    batch = jax.ShapeDtypeStruct((32, 128), jnp.float32)

    def deep(layers, x):
        for layer in layers:
            x = jnp.tanh(x @ layer)
        return x

    def temporaries(mode):
        oracle = multitask_value_and_grad(
            deep,
            lambda own, zs, _: jnp.sum(own * zs[:, 0], axis=1),
            min_norm(),
            8,
            mode=mode,
        )
        step = jax.jit(lambda *arguments: oracle(*arguments, oracle.init()))
        return step.lower(shared, own, batch).compile().memory_analysis().temp_size_in_bytes

    everything = 4 * 8 * 12 * 128**2
    assert temporaries(Exact(pullbacks="vmap")) >= everything
    assert temporaries(Lean()) <= everything / 4


def test_a_rule_that_reads_nothing_forms_no_gramian():
    oracle = multitask_value_and_grad(encode, DECODE, uniform(), NUM_TASKS, mode="exact")
    text = jax.jit(oracle).lower(SHARED, OWN, BATCH, oracle.init()).as_text()
    assert "3x3xf32" not in text and "3x4x5xf32" not in text


def test_a_batch_per_task():
    """Three batches of their own sizes go through one encoder, exactly."""
    rng = np.random.default_rng(1)
    batches = {
        name: {"x": jnp.asarray(rng.standard_normal((6, 4)), jnp.float32), "y": BATCH["y"][t]}
        for t, name in enumerate("abc")
    }

    def encode_one(shared, batch):
        return jnp.tanh(batch["x"] @ shared["w"] + shared["b"][None]), jnp.mean(batch["x"])

    def head_one(name, own, z, batches):
        return jnp.mean((z @ own["w"] + own["b"] - batches[name]["y"]) ** 2), name == "a"

    decode = per_task_decode(
        {name: functools.partial(head_one, name) for name in "abc"}, has_aux=True
    )

    def losses(shared):
        return jnp.stack(
            [
                head_one(name, OWN[name], encode_one(shared, batches[name])[0], batches)[0]
                for name in "abc"
            ]
        )

    rows = jax.jacobian(losses)(SHARED)
    for rule in (min_norm(), uniform()):
        oracle = multitask_value_and_grad(
            encode_one, decode, rule, 3, mode="per_task", has_aux=True
        )
        (values, aux), (shared, _), state = jax.jit(oracle)(SHARED, OWN, batches, oracle.init())
        weights = reference(flat_rows(rows)) if "gramian" in rule.reads else np.ones(3)
        np.testing.assert_allclose(state.task_weights, weights, atol=4 * TOL)
        close(shared, combined(rows, weights), 4 * TOL)
        close(jnp.stack(list(values.values())), losses(SHARED))
        np.testing.assert_allclose(aux[0], [np.mean(batches[n]["x"]) for n in "abc"], atol=TOL)
        assert aux[1] == {"a": True, "b": False, "c": False}
    with pytest.raises(ValueError, match="expected a dict, tuple or list of 3 batches"):
        oracle(SHARED, OWN, batches["a"], oracle.init())


def test_bfloat16_model_keeps_its_dtypes():
    cast = functools.partial(jax.tree.map, lambda leaf: leaf.astype(jnp.bfloat16))
    _, grads, state = call(MGDA, cast(OWN), batch=cast(BATCH), shared=cast(SHARED))
    assert {leaf.dtype for leaf in jax.tree.leaves(grads)} == {jnp.dtype(jnp.bfloat16)}
    assert state.task_weights.dtype == jnp.float32
    np.testing.assert_allclose(jnp.sum(state.task_weights), 1.0, rtol=8 * EPS)


def test_vmap_over_models():
    oracle = multitask_value_and_grad(encode, DECODE, min_norm(), NUM_TASKS)
    many = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf * 0.5]), SHARED)
    states = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), oracle.init())
    together = jax.jit(jax.vmap(oracle, in_axes=(0, None, None, 0)))(many, OWN, BATCH, states)
    alone = call(MGDA, shared=jax.tree.map(lambda x: x[1], many))
    close(jax.tree.map(lambda leaf: leaf[1], together[1]), alone[1], 4 * TOL)


def test_not_finite_loss_shows_and_does_not_stay():
    run, start = compiled(MGDA, DECODE)
    good = run(SHARED, OWN, BATCH, start)[2]
    broken = BATCH | {"y": BATCH["y"].at[1, 0].set(jnp.nan)}
    _, (shared, _), state = run(SHARED, OWN, broken, good)
    assert np.isnan(shared["w"]).all() and np.isnan(state.task_weights).all()
    assert state.weighting == good.weighting


@pytest.mark.parametrize("options", MODES.values(), ids=MODES)
def test_every_uses_the_last_weights_in_between(options):
    run, start = compiled(MGDA, DECODE, every=3, **options)
    moved = jax.tree.map(lambda leaf: leaf * 0.7, SHARED)
    first = run(SHARED, OWN, BATCH, start)
    second = run(moved, OWN, BATCH, first[2])
    third = run(moved, OWN, BATCH, second[2])
    fourth = run(moved, OWN, BATCH, third[2])
    close(first[1], call(MGDA, **options)[1])
    for step in (second, third):
        np.testing.assert_array_equal(step[2].task_weights, first[2].task_weights)
    rows = jax.jacobian(losses_of)(moved, OWN)
    close(second[1][0], combined(rows, first[2].task_weights), 4 * TOL)
    renewed = call(MGDA, shared=moved, **options)
    close(fourth[1], renewed[1], 4 * TOL)
    close(fourth[2].task_weights, renewed[2].task_weights, 4 * TOL)
    broken = BATCH | {"y": jnp.full_like(BATCH["y"], jnp.nan)}
    bad = run(SHARED, OWN, broken, start)
    assert np.isnan(bad[2].task_weights).all()
    after = run(SHARED, OWN, BATCH, bad[2])
    close(after[1], first[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(every=0), "every: expected an int >= 1"),
        (dict(every=2, weighting=uniform()), "every: applies to"),
        (dict(mode="shared"), "mode: expected one of"),
        (dict(mode=Exact), "mode: expected one of"),
        (dict(own_layout="rows"), "own_layout: expected one of"),
        (dict(scope="none"), "scope: expected"),
        (dict(weighting=trimmed_mean()), "mode: a RowRule needs the rows"),
        (dict(weighting=trimmed_mean(), mode=Lean()), "mode: a RowRule needs the rows"),
        (dict(weighting="mgda"), "weighting: expected a Weighting"),
        (dict(num_tasks=0), "num_tasks must be an int >= 1"),
    ],
)
def test_construction_errors(options, message):
    arguments = dict(encode=encode, decode=DECODE, weighting=min_norm(), num_tasks=3) | options
    with pytest.raises(ValueError, match=message):
        multitask_value_and_grad(**arguments)


def test_wrong_number_of_losses():
    oracle = multitask_value_and_grad(encode, DECODE, min_norm(), 2)
    with pytest.raises(ValueError):
        oracle(SHARED, OWN, BATCH, oracle.init())
    with pytest.raises(ValueError, match="own: expected an entry 'c'"):
        DECODE(
            {"a": OWN["a"], "b": OWN["b"]},
            jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), encode(SHARED, BATCH)),
            BATCH,
        )
    with pytest.raises(ValueError, match="heads: expected at least one"):
        per_task_decode({})


def test_check_decode_finds_a_leak():
    rng = np.random.default_rng(2)
    zs = jnp.asarray(rng.standard_normal((2, 3)), jnp.float32)
    own = jnp.ones((2, 3))
    check_decode(lambda own, zs, batch: jnp.sum(own * zs, axis=1), own, zs, None)
    with pytest.raises(ValueError, match=r"loss 0 reads zs\[1\]"):
        check_decode(lambda own, zs, b: jnp.sum(own * zs[::-1], axis=1), own, zs, None)
    with pytest.raises(ValueError, match=r"'w' serves losses \[0, 1\]"):
        check_decode(
            lambda own, zs, b: jnp.sum(own["w"][None] * zs, axis=1), {"w": jnp.ones(3)}, zs, None
        )


def test_a_mode_prints_as_written_and_refuses_what_it_does_not_know():
    for mode in (Exact(pullbacks="map"), Exact(), Lean(), PerTask(), Representation()):
        assert eval(repr(mode)) == mode == pickle.loads(pickle.dumps(mode))
        assert hash(mode) == hash(eval(repr(mode)))
    with pytest.raises(ValueError, match="pullbacks: expected"):
        Exact(pullbacks="scan")
    by_name = {n: call(MGDA, mode=n) for n in ("exact", "parameters")}
    jax.tree.map(np.testing.assert_array_equal, by_name["exact"], by_name["parameters"])
