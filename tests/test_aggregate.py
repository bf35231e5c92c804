"""The optax transformation: every way optax composes, and every silent failure made loud."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import microbatching
from optax.experimental import aggregating

import mgda_jax
from mgda_jax import Weighting, aggregate, aggregate_states, mgda
from mgda_jax.weighting import (
    cr_mogm,
    famo,
    fixed,
    graddrop,
    min_norm,
    moco,
    pcd,
    trimmed_mean,
    uniform,
    upgrad,
)
from tests.half_precision import needs

EPS = float(np.finfo(np.float32).eps)
ROWS = np.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]], np.float32)
WEIGHTS = np.array([0.6, 0.4], np.float32)
PARAMS = {"encoder": {"w": np.ones(3, np.float32)}, "heads": np.zeros(2, np.float32)}
GRADS = {"encoder": {"w": ROWS}, "heads": np.array([10.0, 20.0], np.float32)}
SHARED = {"encoder": True, "heads": False}


@pytest.fixture(autouse=True)
def adam_promotes():
    with jax.numpy_dtype_promotion("standard"):
        yield


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=8 * EPS, atol=8 * EPS)


def as_jax(tree):
    return jax.tree.map(jnp.asarray, tree)


def step(tx, grads=GRADS, params=PARAMS, **extra):
    params = as_jax(params)
    return tx.update(as_jax(grads), tx.init(params), params, **extra)


def test_shared_leaves_are_combined_and_own_leaves_pass():
    updates, state = step(mgda(2, shared=SHARED))
    close(updates["encoder"]["w"], [0.0, 1.0, 1.0])
    close(updates["heads"], GRADS["heads"])
    close(state.task_weights, WEIGHTS)
    close(state.weighting.min_norm, np.sqrt(2.0))


@pytest.mark.parametrize(
    "tx",
    [
        optax.chain(mgda(2, shared=SHARED), optax.sgd(1.0)),
        optax.chain(mgda(2, shared=lambda path: path.startswith("encoder")), optax.sgd(1.0)),
        optax.chain(optax.masked(mgda(2), SHARED), optax.sgd(1.0)),
        optax.chain(
            optax.partition(
                {"shared": mgda(2), "own": optax.identity()},
                {"encoder": "shared", "heads": "own"},
            ),
            optax.sgd(1.0),
        ),
        aggregating.process(optax.identity(), mgda(2, shared=SHARED), optax.sgd(1.0)),
    ],
    ids=["shared", "predicate", "masked", "partition", "aggregating.process"],
)
def test_composes(tx):
    updates, state = jax.jit(lambda: step(tx))()
    close(updates["encoder"]["w"], [0.0, -1.0, -1.0])
    close(updates["heads"], -GRADS["heads"])
    (found,) = aggregate_states(state)
    close(found.task_weights, WEIGHTS)
    close(optax.tree.get(state, "task_weights"), WEIGHTS)


def test_two_aggregators_are_found_by_type():
    labels = {"encoder": "a", "heads": "b"}
    tx = optax.partition({"a": mgda(2), "b": aggregate(uniform(), 3)}, labels)
    grads = {"encoder": GRADS["encoder"], "heads": np.ones((3, 2), np.float32)}
    _, state = step(tx, grads)
    assert sorted(len(s.task_weights) for s in aggregate_states(state)) == [2, 3]


def test_inject_hyperparams():
    tx = optax.inject_hyperparams(
        lambda learning_rate, c: optax.chain(
            aggregate(fixed([c, 1 - c]), 2, SHARED, scope="shared"), optax.sgd(learning_rate)
        )
    )(learning_rate=1.0, c=0.25)
    updates, state = jax.jit(lambda: step(tx))()
    close(updates["encoder"]["w"], -(0.25 * ROWS[0] + 0.75 * ROWS[1]))
    assert set(state.hyperparams) == {"learning_rate", "c"}

    named = optax.inject_hyperparams(mgda, static_args=("num_tasks",))(num_tasks=2)
    close(step(named, {"w": ROWS}, {"w": np.ones(3, np.float32)})[0]["w"], [0, 1, 1])
    with pytest.raises(ValueError, match="static_args"):
        optax.inject_hyperparams(mgda)(num_tasks=2).init({"w": jnp.ones(3)})


def test_bad_batch_is_visible_and_forgotten():
    tx = optax.chain(mgda(2, shared=SHARED), optax.apply_if_finite(optax.adam(0.1), 5))
    params = as_jax(PARAMS)
    update = jax.jit(tx.update)
    good = update(as_jax(GRADS), tx.init(params), params)[1]
    bad_grads = as_jax(GRADS)
    bad_grads["encoder"]["w"] = bad_grads["encoder"]["w"].at[0, 0].set(jnp.nan)
    updates, bad = update(bad_grads, good, params)
    assert not np.any(jax.tree.leaves(updates)[0])
    assert np.isnan(aggregate_states(bad)[0].task_weights).all()
    close(aggregate_states(bad)[0].weighting, aggregate_states(good)[0].weighting)
    updates, _ = update(as_jax(GRADS), bad, params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(updates))


def test_not_finite_gradients_make_the_update_nan():
    for value in (np.nan, np.inf):
        rows = ROWS.copy()
        rows[1, 2] = value
        updates, state = step(mgda(2), {"w": rows}, {"w": np.ones(3, np.float32)})
        assert np.isnan(updates["w"]).all()
        assert np.isnan(state.task_weights).all()


def test_microbatched_gradients_are_averaged_before_the_rule():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((8, 3)), jnp.float32)

    def losses(w, x):
        return jnp.stack([jnp.mean((x @ w - 1) ** 2), jnp.mean((x @ w + 2) ** 2)])

    def grads(w, x):
        return mgda_jax.task_gradients(losses)(w, x)[1]

    w = jnp.ones(3)
    mean = microbatching.AccumulationType.MEAN
    micro = microbatching.microbatch(grads, argnums=1, microbatch_size=2, accumulator=mean)
    tx = mgda(2)
    whole, _ = tx.update(grads(w, x), tx.init(w), w)
    parts, _ = tx.update(micro(w, x), tx.init(w), w)
    np.testing.assert_allclose(whole, parts, rtol=64 * EPS, atol=64 * EPS)


def test_scan_donation_and_one_compile():
    tx = optax.chain(mgda(2, shared=SHARED), optax.adam(1e-2))
    params = as_jax(PARAMS)
    traces = []

    def body(carry, _):
        traces.append(1)
        params, state = carry
        updates, state = tx.update(as_jax(GRADS), state, params)
        return (optax.apply_updates(params, updates), state), state[0].task_weights

    run = jax.jit(lambda carry: jax.lax.scan(body, carry, length=3), donate_argnums=0)
    carry, weights = run((params, tx.init(params)))
    assert weights.shape == (3, 2)
    count = len(traces)
    run(carry)
    assert len(traces) == count


def test_vmap_over_seeds_equals_a_loop():
    tx = mgda(3)
    rows = np.random.default_rng(1).standard_normal((4, 3, 5)).astype(np.float32)
    params = jnp.zeros((4, 5))
    states = jax.vmap(tx.init)(params)
    together, _ = jax.jit(jax.vmap(tx.update))(jnp.asarray(rows), states, params)
    update = jax.jit(tx.update)
    for i in range(4):
        alone, _ = update(jnp.asarray(rows[i]), tx.init(params[i]), params[i])
        np.testing.assert_allclose(together[i], alone, rtol=64 * EPS, atol=64 * EPS)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_updates_keep_the_gradients_dtype(dtype):
    needs(dtype)
    updates, state = step(mgda(2), {"w": jnp.asarray(ROWS, dtype)}, {"w": jnp.ones(3, dtype)})
    assert updates["w"].dtype == dtype
    assert state.task_weights.dtype == jnp.float32
    close(updates["w"].astype(jnp.float32), [0, 1, 1])


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20, 1e30])
def test_end_to_end_scales(scale):
    updates, state = step(mgda(2), {"w": ROWS * np.float32(scale)}, {"w": np.ones(3, np.float32)})
    close(state.task_weights, WEIGHTS)
    close(updates["w"] / np.float32(scale), [0, 1, 1])
    close(state.weighting.min_norm / np.float32(scale), np.sqrt(2.0))


def test_active_equals_the_smaller_problem():
    rows = np.random.default_rng(2).standard_normal((4, 6)).astype(np.float32)
    keep = np.array([True, False, True, True])
    poisoned = rows.copy()
    poisoned[1] = np.nan
    params = np.ones(6, np.float32)
    updates, state = step(mgda(4), poisoned, params, active=keep)
    expected, small = step(mgda(3), rows[keep], params)
    np.testing.assert_allclose(updates, expected, rtol=64 * EPS, atol=64 * EPS)
    np.testing.assert_allclose(state.task_weights[keep], small.task_weights, atol=64 * EPS)
    assert state.task_weights[1] == 0
    updates, state = step(mgda(4), poisoned, params, active=[False] * 4)
    assert not np.any(updates) and not np.any(state.task_weights)


def test_given_gramian_replaces_the_formed_one():
    other = np.array([[1.0, 0.0], [0.0, 3.0]], np.float32)
    _, state = step(mgda(2, shared=SHARED), gramian=other)
    close(state.task_weights, [0.75, 0.25])
    with pytest.raises(ValueError, match=r"gramian: expected shape \(2, 2\)"):
        step(mgda(2, shared=SHARED), gramian=jnp.eye(3))


def test_loss_normalization_reads_losses_by_name():
    tx = mgda(2, shared=SHARED, normalization="loss")
    _, state = step(tx, losses={"right": 2.0, "left": 1.0})
    scaled = ROWS / np.array([[1.0], [2.0]])
    alpha = np.array([scaled[1] @ (scaled[1] - scaled[0]), scaled[0] @ (scaled[0] - scaled[1])])
    weights = alpha / [1.0, 2.0]
    close(state.task_weights, weights / weights.sum())
    with pytest.raises(ValueError, match="reads 'losses'"):
        step(tx)


def test_scope_all_scales_each_own_leaf_by_its_task():
    tx = aggregate(fixed([2.0, 3.0]), 2, SHARED, owner={"encoder": None, "heads": 1})
    updates, _ = step(tx)
    close(updates["encoder"]["w"], 2 * ROWS[0] + 3 * ROWS[1])
    close(updates["heads"], 3 * GRADS["heads"])
    updates, _ = step(tx, active=[True, False])
    close(updates["heads"], [0.0, 0.0])
    with pytest.raises(ValueError, match="'heads'.*needs its task.*owner="):
        step(aggregate(uniform(), 2, SHARED))


LOSSES = {"depth": jnp.array(1.0), "segm": jnp.array(2.0)}


@pytest.mark.parametrize(
    ("rule", "given"),
    [
        (min_norm(), {"losses": LOSSES, "active": {"A_segm": True, "depth": True}}),
        (fixed({"segmentation": 1.0, "depth": 2.0}), {"losses": LOSSES}),
        (fixed({"segmentation": 1.0, "depth": 2.0}), {"active": {"segm": True, "depth": True}}),
        (upgrad(preference={"segm": 1.0, "Depth": 2.0}), {"losses": LOSSES}),
        (cr_mogm(upgrad(preference={"segm": 1.0, "Depth": 2.0})), {"losses": LOSSES}),
        (pcd(tau={"a": 0.1, "b": 0.2}), {"losses": LOSSES}),
        (graddrop(leak={"a": 0.1, "b": 0.2}), {"losses": LOSSES}),
        (famo(), {"losses": LOSSES, "previous_losses": {"a": 1.0, "segm": 1.0}}),
    ],
)
def test_the_tasks_have_one_set_of_names(rule, given):
    params = {"w": np.ones(3, np.float32)}
    with pytest.raises(ValueError, match=r"expected the tasks of .*\('.*'\), got \('.*'\)"):
        step(aggregate(rule, 2, scope=None), {"w": ROWS}, params, **given)


def test_the_oracle_compares_names_too():
    heads = {name: lambda own, z, batch: jnp.sum(z * own) for name in ("depth", "segm")}
    own = {name: jnp.ones(2) for name in heads}

    def run(rule, **given):
        decode = mgda_jax.per_task_decode(heads)
        oracle = mgda_jax.multitask_value_and_grad(lambda p, x: x * p, decode, rule, 2)
        return oracle(jnp.ones(2), own, jnp.ones(2), oracle.init(), **given)

    with pytest.raises(ValueError, match="active: expected the tasks of losses"):
        run(min_norm(), active={"A_segm": True, "depth": False})
    with pytest.raises(ValueError, match="fixed: weights: expected the tasks of losses"):
        run(fixed({"segmentation": 1.0, "depth": 2.0}))
    close(run(fixed({"segm": 2.0, "depth": 3.0}))[2].task_weights, [3.0, 2.0])


@pytest.mark.parametrize(
    ("grads", "message"),
    [
        ({"encoder": {"w": ROWS[0]}, "heads": GRADS["heads"]}, "'encoder/w'.*task axis of 2"),
        ({"encoder": {"w": ROWS.T}, "heads": GRADS["heads"]}, "'encoder/w'.*task axis of 2"),
        (
            {"encoder": {"w": ROWS[:, :2]}, "heads": GRADS["heads"]},
            r"'encoder/w': expected shape \(2, 3\) \(shared.*got \(2, 2\)",
        ),
        (
            {"encoder": {"w": ROWS}, "heads": np.ones((2, 2), np.float32)},
            r"'heads': expected shape \(2,\) \(own.*got \(2, 2\)",
        ),
    ],
)
def test_wrong_axes_raise_instead_of_broadcasting(grads, message):
    with pytest.raises(ValueError, match=message):
        step(mgda(2, shared=SHARED), grads)


def test_a_forgotten_task_axis_raises_without_params_too():
    tx = mgda(2)
    with pytest.raises(ValueError, match="task axis of 2"):
        tx.update({"w": jnp.ones(3)}, tx.init({"w": jnp.ones(3)}))


PLAIN = {"w": jnp.ones((2, 3))}  # as long as there are tasks


def test_a_gradient_as_long_as_there_are_tasks_raises_without_params():
    tx = mgda(2)
    state = tx.init(PLAIN)
    with pytest.raises(ValueError, match=r"'w': expected shape \(2, 2, 3\).*got \(2, 3\)"):
        tx.update(PLAIN, state)
    other = mgda(2)  # as after a restart from a file
    with pytest.raises(ValueError, match="expected update.updates, state, params., or init before"):
        other.update(PLAIN, state)
    rows = {"w": jnp.ones((2, 2, 3))}
    close(tx.update(rows, state)[0]["w"], np.ones((2, 3)))
    close(other.update(rows, state, PLAIN)[0]["w"], np.ones((2, 3)))


def test_one_transformation_serves_parameters_of_several_shapes():
    tx = mgda(2)
    for shape in ((2, 3), (3,), (5,)):
        tx.init({"w": jnp.ones(shape)})
    for shape in ((2, 3), (3,)):
        assert tx.update({"w": jnp.ones((2, *shape))}, tx.init(PLAIN))[0]["w"].shape == shape


def test_the_jacobian_of_a_dict_of_losses_raises():
    def losses(params):
        return {"a": jnp.sum(params["w"]), "b": jnp.sum(params["w"] ** 2)}

    tx, jacobian = mgda(2), jax.jacrev(losses)(PLAIN)
    for params in (None, PLAIN):
        with pytest.raises(ValueError, match="expected the structure of params"):
            tx.update(jacobian, tx.init(PLAIN), params)


def test_a_missing_gradient_raises():
    params = {"w": jnp.ones(3), "v": jnp.ones(3)}
    with pytest.raises(ValueError, match="structure of params, no gradient at 'v'"):
        step(mgda(2), {"w": ROWS}, params)


OWN = {"w": np.ones(3, np.float32), "heads": {"a": np.ones(2, np.float32), "b": np.ones(1)}}
OWN_GRADS = {"w": ROWS, "heads": {"a": np.full(2, np.nan, np.float32), "b": np.full(1, 5.0)}}
OWNED = {"shared": {"w": True, "heads": False}, "owner": {"w": 0, "heads": {"a": 0, "b": 1}}}


@pytest.mark.parametrize("rule", [min_norm(), uniform(), trimmed_mean(), moco()])
def test_an_inactive_tasks_own_leaf_is_zero(rule):
    updates, _ = step(aggregate(rule, 2, **OWNED), OWN_GRADS, OWN, active=[False, True])
    np.testing.assert_array_equal(updates["heads"]["a"], [0, 0])
    close(updates["heads"]["b"], [5])
    assert np.isfinite(updates["w"]).all()


@pytest.mark.parametrize("rule", [fixed([2.0, 3.0]), trimmed_mean()])
def test_own_leaves_of_integers_have_no_gradient_and_none_is_made(rule):
    params = {**OWN, "heads": {"a": np.ones(2, np.float32), "b": np.ones(1, np.int32)}}
    none = np.zeros(1, jax.dtypes.float0)
    grads = {"w": ROWS, "heads": {"a": np.ones(2, np.float32), "b": none}}
    tx = aggregate(rule, 2, **OWNED)
    active = jnp.array([True, False])
    updates, _ = tx.update(grads, tx.init(params), params, active=active)
    assert updates["heads"]["b"].dtype == jax.dtypes.float0
    close(updates["heads"]["a"], np.full(2, 2.0 if isinstance(rule, Weighting) else 1.0))


def test_a_row_rule_cannot_scale_own_gradients():
    with pytest.raises(ValueError, match="scope: a RowRule has no weights"):
        aggregate(trimmed_mean(), 2, scope="all")
    with pytest.raises(ValueError, match="scope: a RowRule has no weights"):
        mgda_jax.multitask_value_and_grad(
            lambda p, x: x, lambda o, z, x: z, trimmed_mean(), 2, mode="parameters", scope="all"
        )


def test_another_structure_raises():
    tx = mgda(2)
    with pytest.raises(ValueError, match="expected the structure of params"):
        tx.update({"w": jnp.asarray(ROWS)}, tx.init({"w": jnp.ones(3)}), {"v": jnp.ones(3)})


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: mgda(0), "num_tasks must be an int >= 1"),
        (lambda: mgda(2, normalization="L2"), "normalization must be one of"),
        (lambda: mgda(2, method="qp"), "method must be one of"),
        (lambda: min_norm(max_steps=0), "max_steps must be an int >= 1"),
        (lambda: aggregate(uniform(), 2, scope="heads"), "scope: expected"),
        (lambda: aggregate(uniform, 2), "weighting: expected a Weighting"),
        (lambda: uniform(reduction="max"), "reduction must be"),
        (lambda: fixed([1.0, float("nan")]), "weights must be finite"),
        (lambda: aggregate(fixed([1.0]), 2).init(jnp.ones(3)), "expected 2 entries"),
    ],
)
def test_construction_errors(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_a_rule_for_another_number_of_tasks_is_named():
    rule = uniform()
    broken = rule._replace(update=lambda state, **_: (jnp.ones(5), state))
    with pytest.raises(ValueError, match=r"weights of shape \(2,\), got \(5,\)"):
        step(aggregate(broken, 2, scope="shared"), {"w": ROWS}, {"w": np.ones(3, np.float32)})


def test_weights_are_constants_to_differentiation():
    tx, params = mgda(2), jnp.zeros(3)
    scale = jax.grad(lambda s: jnp.sum(tx.update(s * ROWS, tx.init(params), params)[0] * ROWS[0]))
    close(jax.jit(scale)(1.0), WEIGHTS @ ROWS @ ROWS[0])
    of_rows = jax.grad(lambda rows: jnp.sum(tx.update(rows, tx.init(params), params)[0]))
    close(jax.jit(of_rows)(jnp.asarray(ROWS)), np.outer(WEIGHTS, np.ones(3)))


def test_checkpoint_round_trip(tmp_path):
    ocp = pytest.importorskip("orbax.checkpoint")
    tx = optax.chain(mgda(2, shared=SHARED), optax.adam(1e-2))
    _, state = step(tx)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        back = checkpointer.restore(tmp_path / "state", jax.tree.map(jnp.zeros_like, state))
    assert jax.tree.structure(back) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, back, state)


def test_train_state_recipe():
    """Linen's TrainState passes no extra arguments on: close over them, or update by hand."""
    train_state = pytest.importorskip("flax.training.train_state")
    tx = optax.chain(mgda(2, shared=SHARED), optax.sgd(1.0))
    state = train_state.TrainState.create(apply_fn=lambda: None, params=as_jax(PARAMS), tx=tx)
    after = state.apply_gradients(grads=as_jax(GRADS))
    close(after.params["encoder"]["w"], [1.0, 0.0, 0.0])

    updates, opt_state = state.tx.update(
        as_jax(GRADS), state.opt_state, state.params, active=jnp.array([True, False])
    )
    by_hand = state.replace(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        opt_state=opt_state,
    )
    close(by_hand.params["encoder"]["w"], 1 - ROWS[0])


def test_nnx_optimizer_recipe():
    nnx = pytest.importorskip("flax.nnx")

    class Model(nnx.Module):
        def __init__(self):
            self.encoder = nnx.Param(jnp.ones(3))
            self.head = nnx.Param(jnp.zeros(2))

    model = Model()
    tx = optax.chain(mgda(2, shared=lambda path: "encoder" in path), optax.sgd(1.0))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    grads = nnx.state(model, nnx.Param)
    grads = jax.tree.map_with_path(
        lambda path, leaf: jnp.asarray(ROWS) if "encoder" in str(path) else jnp.ones(2), grads
    )
    optimizer.update(model, grads, active=jnp.array([True, True]))
    close(model.encoder[...], [1.0, 0.0, 0.0])
    close(model.head[...], [-1.0, -1.0])


def test_normalization_moves_the_direction_the_right_way():
    """g1 = 10(1, 0) and g2 = (-1/2, √3/2): the authors' form ascends task 2, ours does not."""
    rows = np.array([[10.0, 0.0], [-0.5, np.sqrt(3) / 2]], np.float32)
    params = np.zeros(2, np.float32)
    ours, _ = step(mgda(2, normalization="l2"), rows, params)
    assert (rows @ ours > 0).all()
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = unit @ ours
    np.testing.assert_allclose(cosines[0], cosines[1], rtol=16 * EPS)
    theirs, _ = step(aggregate(min_norm(normalization="l2", authors_form=True), 2), rows, params)
    np.testing.assert_allclose(rows[1] @ theirs, -2.0, rtol=16 * EPS)


@pytest.mark.parametrize("normalization", ["none", "l2", "loss", "loss+"])
def test_degenerate_rows_and_losses_stay_on_the_simplex(normalization):
    tx = mgda(3, normalization=normalization)
    run = jax.jit(functools.partial(step, tx))
    cases = {
        "zero row": (np.array([[0, 0], [1, 2], [3, 1]]), [1.0, 1.0, 1.0]),
        "all zero": (np.zeros((3, 2)), [1.0, 1.0, 1.0]),
        "duplicates": (np.ones((3, 2)), [1.0, 2.0, 3.0]),
        "opposed": (np.array([[1, 1], [-1, -1], [2, 0]]), [1.0, 1.0, 1.0]),
        "zero loss": (np.array([[1, 0], [0, 1], [1, 1]]), [0.0, 1.0, 2.0]),
    }
    if not normalization.startswith("loss"):
        cases["negative losses"] = (np.array([[1, 0], [0, 1], [1, 1]]), [-1.0, -1.0, -2.0])
    for name, (rows, losses) in cases.items():
        updates, state = run(
            rows.astype(np.float32), np.zeros(2, np.float32), losses=jnp.array(losses)
        )
        weights = np.asarray(state.task_weights)
        assert np.isfinite(updates).all(), name
        assert (weights >= 0).all() and abs(weights.sum() - 1) <= 8 * EPS, (name, weights)
        assert (rows @ np.asarray(updates) >= -64 * EPS).all(), name


BARE = {"encoder": {"w": np.ones(3, np.float32), "bias": None}, "heads": [None, np.zeros(2)]}
BARE_GRADS = {"encoder": {"w": ROWS, "bias": None}, "heads": [None, np.ones(2, np.float32)]}


@pytest.mark.parametrize(
    "shared", [{"encoder": True, "heads": False}, lambda path: path.startswith("encoder/")]
)
def test_parameters_may_hold_none(shared):
    tx = aggregate(min_norm(), 2, shared, scope="all", owner={"encoder": None, "heads": [0, 1]})
    updates, _ = step(optax.chain(tx, optax.sgd(1.0)), BARE_GRADS, BARE)
    assert updates["encoder"]["bias"] is None and updates["heads"][0] is None
    close(updates["encoder"]["w"], [0.0, -1.0, -1.0])
    close(updates["heads"][1], [-0.4, -0.4])


def test_whole_trees_may_hold_none():
    grads, params = {"w": ROWS, "bias": None}, {"w": np.ones(3, np.float32), "bias": None}
    for rule in (min_norm(), moco(), trimmed_mean()):
        updates, _ = step(aggregate(rule, 2), grads, params)
        assert updates["bias"] is None and updates["w"].shape == (3,)


def test_gradients_may_leave_parameters_out():
    """As those of a filtered model do: what has no gradient is None there, whatever it is."""
    params = {"w": np.ones(3, np.float32), "frozen": {"w": np.ones(2)}, "activation": None}
    updates, _ = step(mgda(2), {"w": ROWS, "frozen": None, "activation": None}, params)
    close(updates["w"], [0.0, 1.0, 1.0])
    with pytest.raises(ValueError, match=r"'w': expected shape \(2, 3\)"):
        step(mgda(2), {"w": ROWS[:, :2], "frozen": None, "activation": None}, params)


@jax.tree_util.register_pytree_node_class
class Layer:
    """A layer whose constructor wants arrays."""

    def __init__(self, kernel, head):
        if kernel is None or head is None:
            raise TypeError("expected arrays")
        self.kernel, self.head = kernel, head

    def tree_flatten(self):
        return (self.kernel, self.head), None

    @classmethod
    def tree_unflatten(cls, _, children):
        return cls(*children)


@pytest.mark.parametrize("rule", [min_norm(), moco(), trimmed_mean()])
def test_a_node_that_refuses_none_may_be_half_shared(rule):
    def losses(layer):
        return jnp.stack([jnp.sum(layer.kernel**2), jnp.sum(layer.kernel * layer.head)])

    params, mask = Layer(jnp.ones(3), jnp.ones(3)), Layer(True, False)
    _, grads = mgda_jax.task_gradients(losses, mask)(params)
    tx = aggregate(rule, 2, mask)
    updates, _ = tx.update(grads, tx.init(params), params)
    assert isinstance(updates, Layer)
    assert updates.kernel.shape == (3,)
    close(updates.head, np.ones(3))


def test_clipping_goes_after_the_rule():
    """Before it the stack is clipped: as T gradients together, and shorter than asked."""
    params, grads = {"w": np.ones(3, np.float32)}, {"w": 10 * ROWS}
    clip = optax.clip_by_global_norm(1.0)
    after, _ = step(optax.chain(mgda(2), clip), grads, params)
    before, _ = step(optax.chain(clip, mgda(2)), grads, params)
    np.testing.assert_allclose(np.linalg.norm(after["w"]), 1.0, rtol=8 * EPS)
    together = np.sqrt(2.0) / np.linalg.norm(ROWS)
    np.testing.assert_allclose(np.linalg.norm(before["w"]), together, rtol=8 * EPS)
