"""What the oracle refuses, and how the names of tasks meet."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgda_jax import (
    check_decode,
    check_shared,
    multitask_value_and_grad,
    per_task_decode,
    task_gradients,
)
from mgda_jax.oracle import Ragged
from mgda_jax.weighting import min_norm
from tests.problems import reference

EPS = float(np.finfo(np.float32).eps)
SHARED = jnp.array([[0.5, -1.0], [0.25, 2.0], [1.0, 0.5]])
OWN = {"depth": jnp.array([1.0, -1.0]), "seg": jnp.array([0.5, 2.0])}
X = jnp.array([[1.0, 2.0, -1.0], [0.5, -0.25, 3.0]])


def encode(shared, x):
    return jnp.tanh(jnp.matmul(x, shared, precision="highest"))


def head(own, z, batch):
    del batch
    return jnp.mean((z @ own - 1) ** 2)


DECODE = per_task_decode({"seg": head, "depth": head})
PER_TASK = dict(mode="per_task")


def oracle_of(decode=DECODE, **options):
    return multitask_value_and_grad(encode, decode, min_norm(), 2, **options)


def test_a_misspelt_keyword_is_refused():
    oracle = oracle_of()
    for name in ("actives", "gramian", "losses", "previous_losses"):
        with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
            oracle(SHARED, OWN, X, oracle.init(), **{name: jnp.ones(2)})


def test_parameters_without_a_gradient_are_refused():
    oracle = oracle_of()
    counted = {"w": SHARED, "steps": jnp.zeros((), jnp.int32)}
    with pytest.raises(ValueError, match="shared at 'steps': expected floating .* int32"):
        oracle(counted, OWN, X, oracle.init())
    with pytest.raises(ValueError, match="own at 'seg/key': expected floating"):
        oracle(SHARED, OWN | {"seg": {"key": jax.random.key(0)}}, X, oracle.init())


@pytest.mark.parametrize("scale", [-2.0, 0.0, float("nan"), float("inf"), True, jnp.ones(1)])
def test_a_loss_scale_that_is_no_positive_number_is_refused(scale):
    oracle = oracle_of()
    with pytest.raises(ValueError, match="loss_scale: expected a positive finite scalar"):
        oracle(SHARED, OWN, X, oracle.init(), loss_scale=scale)


def test_a_traced_loss_scale_is_refused_for_its_shape_only():
    oracle = oracle_of()

    def step(scale):
        return oracle(SHARED, OWN, X, oracle.init(), loss_scale=scale)

    jax.eval_shape(step, jax.ShapeDtypeStruct((), jnp.bfloat16))
    with pytest.raises(ValueError, match="loss_scale: expected"):
        jax.eval_shape(step, jax.ShapeDtypeStruct((2,), jnp.float32))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(has_aux="no"), "has_aux: expected True or False"),
        (dict(every=True), "every: expected an int >= 1"),
        (dict(every=2.0), "every: expected an int >= 1"),
    ],
)
def test_options_of_another_type_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        oracle_of(**options)


def test_the_state_of_another_oracle_is_refused():
    oracle = oracle_of()
    other = multitask_value_and_grad(encode, DECODE, min_norm(), 3)
    for state in (other.init(), None, jnp.zeros(2)):
        with pytest.raises(ValueError, match="state: expected an AggregateState"):
            oracle(SHARED, OWN, X, state)
    seldom = oracle_of(every=2)
    for run, state in ((oracle, seldom.init()), (seldom, oracle.init())):
        with pytest.raises(ValueError, match="state"):
            run(SHARED, OWN, X, state)


def test_losses_that_are_no_losses_are_refused():
    def decode(own, zs, batch):
        return DECODE(own, zs, batch), {"accuracy": 0.5}

    oracle = oracle_of(decode)
    with pytest.raises(ValueError, match="has_aux=True"):
        oracle(SHARED, OWN, X, oracle.init())
    whole = {name: lambda own, z, b: jnp.int32(jnp.sum(z @ own)) for name in OWN}
    oracle = oracle_of(per_task_decode(whole))
    with pytest.raises(ValueError, match=r"losses\['depth'\]: expected a real floating dtype"):
        oracle(SHARED, OWN, X, oracle.init())


def test_active_tasks_of_other_names_are_refused():
    active = {"depth": True, "A_seg": False}
    message = r"active: expected the tasks of losses, .*'seg'.*, got .*'A_seg'"
    oracle = oracle_of()
    with pytest.raises(ValueError, match=message):
        oracle(SHARED, OWN, X, oracle.init(), active=active)

    def losses(shared):
        return {name: head(own, encode(shared, X), X) for name, own in OWN.items()}

    with pytest.raises(ValueError, match=message):
        task_gradients(losses)(SHARED, active=active)


def test_own_parameters_of_other_names_are_refused():
    own = {"A_seg": OWN["seg"], "depth": OWN["depth"]}

    def decode(own, zs, batch):
        return {"depth": head(own["depth"], zs[0], batch), "seg": head(own["A_seg"], zs[1], batch)}

    oracle = oracle_of(decode, own_layout="per_task")
    with pytest.raises(
        ValueError, match=r"own: expected the tasks of losses, .*'seg'.*, got .*'A_seg'"
    ):
        oracle(SHARED, own, X, oracle.init())
    by_position = per_task_decode([head, head])
    oracle = oracle_of(by_position, own_layout="per_task")
    with pytest.raises(ValueError, match="own: with own_layout='per_task' expected 2 subtrees"):
        oracle(SHARED, (*OWN.values(), jnp.ones(())), X, oracle.init())
    oracle = oracle_of(own_layout="stacked")
    with pytest.raises(ValueError, match="own at 'scale': with own_layout='stacked'"):
        oracle(SHARED, OWN | {"scale": jnp.ones(3)}, X, oracle.init())


@pytest.mark.parametrize(
    ("decode", "batch"),
    [
        (per_task_decode([head, head]), {"seg": X, "depth": X}),
        (DECODE, [X, X]),
        (DECODE, {"segmentation": X, "depth": X}),
        (DECODE, {"x": X, "y": X}),
        (lambda own, zs, batch: jnp.sum(zs, axis=(1, 2)), {"x": X, "y": X}),
    ],
)
def test_batches_of_other_names_than_the_losses_are_refused(decode, batch):
    oracle = oracle_of(decode, **PER_TASK)
    own = OWN if decode is DECODE else tuple(OWN.values())
    with pytest.raises(ValueError, match=r"batch: .*expected a batch for each .* \['.*got \['"):
        oracle(SHARED, own, batch, oracle.init())


@pytest.mark.parametrize("custom", [False, True])
def test_batches_of_different_sizes(custom):
    batches = {"depth": X, "seg": jnp.concatenate([X, 2 * X, -X[:1]])}

    def losses(shared, own):
        return jnp.stack([head(own[n], encode(shared, batches[n]), None) for n in sorted(own)])

    def decode(own, zs, batch):
        assert isinstance(zs, Ragged)
        return {n: head(own[n], z, batch) for n, z in zip(("depth", "seg"), zs.parts, strict=True)}

    oracle = oracle_of(decode if custom else DECODE, **PER_TASK)
    (values, _), grads, state = oracle(SHARED, OWN, batches, oracle.init())
    rows, own_rows = jax.jacobian(losses, argnums=(0, 1))(SHARED, OWN)
    weights = reference(np.asarray(rows, np.float64).reshape(2, -1))
    tol = 64 * EPS * float(jnp.max(jnp.abs(rows)))
    np.testing.assert_allclose(state.task_weights, weights, atol=256 * EPS)
    np.testing.assert_allclose(grads[0], np.tensordot(weights, rows, 1), atol=256 * tol)
    for t, name in enumerate(("depth", "seg")):
        np.testing.assert_allclose(grads[1][name], own_rows[name][t], atol=tol)
        np.testing.assert_allclose(values[name], losses(SHARED, OWN)[t], rtol=64 * EPS)


def test_check_decode_reads_ragged_representations():
    zs = Ragged((X, X[:1]))
    own = (OWN["depth"], OWN["seg"])
    shared = jnp.ones((3, 2))
    check_decode(per_task_decode([lambda o, z, b: head(o, z @ shared, b)] * 2), own, zs, None)

    def leaks(own, zs, batch):
        return jnp.stack(
            [jnp.sum(zs.parts[1]) + jnp.sum(own[0]), jnp.sum(own[1] * zs.parts[1][0, :2])]
        )

    with pytest.raises(ValueError, match=r"loss 0 reads zs\[1\]"):
        check_decode(leaks, own, zs, None)


def test_check_shared_finds_a_parameter_of_two_tasks_declared_own():
    def losses(p, x):
        z = jnp.tanh(x[0] * p["trunk"])
        tower = z * p["tower"]
        heads = p["heads"]
        return {
            "a": jnp.sum(tower * heads[0]),
            "b": jnp.sum(tower * heads[1]),
            "c": jnp.sum(z * heads[2]),
        }, {"count": 3}

    params = {"trunk": X[0], "tower": X[1], "heads": jnp.eye(3) + 1}
    towers = {"trunk": True, "tower": True, "heads": False}
    check_shared(losses, towers, params, X, has_aux=True)
    with pytest.raises(ValueError, match=r"True at 'tower', which serves the losses \['a', 'b'\]"):
        check_shared(losses, lambda path: path == "trunk", params, X, has_aux=True)
