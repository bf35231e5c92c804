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
from mgda_jax import aggregate, aggregate_states, mgda
from mgda_jax.weighting import (
    fixed,
    min_norm,
    uniform,
)
from tests.aggregate_problem import EPS, GRADS, PARAMS, ROWS, SHARED, WEIGHTS, as_jax, close, step
from tests.half_precision import needs


@pytest.fixture(autouse=True)
def adam_promotes():
    with jax.numpy_dtype_promotion("standard"):
        yield


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


def test_clipping_goes_after_the_rule():
    """Before it the stack is clipped: as T gradients together, and shorter than asked."""
    params, grads = {"w": np.ones(3, np.float32)}, {"w": 10 * ROWS}
    clip = optax.clip_by_global_norm(1.0)
    after, _ = step(optax.chain(mgda(2), clip), grads, params)
    before, _ = step(optax.chain(clip, mgda(2)), grads, params)
    np.testing.assert_allclose(np.linalg.norm(after["w"]), 1.0, rtol=8 * EPS)
    together = np.sqrt(2.0) / np.linalg.norm(ROWS)
    np.testing.assert_allclose(np.linalg.norm(before["w"]), together, rtol=8 * EPS)
