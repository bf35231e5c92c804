"""Ways of sharing beyond one encoder: each trains under MGDA, and under MGDA-UB if it can."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from experiments.models.cross_stitch import cross_stitch
from experiments.models.lenet import LeNetSize
from experiments.models.mmoe import mmoe
from experiments.models.multi_camera import multi_camera
from experiments.models.snr import Inputs, expected_open, gates, snr
from experiments.models.soft_sharing import distances, soft_sharing
from experiments.multimnist.data import Dataset, Split
from experiments.multimnist.networks import NETWORKS
from experiments.multimnist.problem import digit_pairs
from mgda_jax import check_decode, multitask_value_and_grad, per_task_decode
from mgda_jax.weighting import min_norm

TASKS = {"a": 1, "b": 2}
STEPS = 80


def examples(shape: tuple[int, ...]) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Inputs and two targets, a part of which both have in common."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, *shape)).astype(np.float32)
    flat = x.reshape(64, -1) @ rng.normal(size=(np.prod(shape), 3)) / np.sqrt(np.prod(shape))
    targets = {"a": np.tanh(flat[:, :1]), "b": np.tanh(flat[:, :1] + flat[:, 1:])}
    return jnp.asarray(x), {k: jnp.asarray(v, jnp.float32) for k, v in targets.items()}


def mean_square(out: jax.Array, target: jax.Array) -> jax.Array:
    return jnp.mean((out - target) ** 2)


def train(model, x, targets, mode: str) -> tuple[np.ndarray, np.ndarray]:
    """The two losses before and after, (T,) each."""
    decode = per_task_decode(
        {
            task: lambda own, z, batch, task=task: mean_square(
                model.heads[task](own, z, batch), targets[task]
            )
            for task in TASKS
        }
    )
    oracle = multitask_value_and_grad(model.encode, decode, min_norm(), len(TASKS), mode=mode)
    tx = optax.adam(1e-2)

    @jax.jit
    def run(params):
        def step(carry, _):
            params, opt, state = carry
            (losses, _), grads, state = oracle(*params, x, state)
            updates, opt = tx.update(grads, opt, params)
            return (optax.apply_updates(params, updates), opt, state), (
                jnp.stack([losses["a"], losses["b"]]),
                state.task_weights,
            )

        return lax.scan(step, (params, tx.init(params), oracle.init()), None, STEPS)[1]

    losses, weights = run(jax.jit(model.init)(jax.random.key(0)))
    assert np.isfinite(weights).all()
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-5)
    return np.asarray(losses[0]), np.asarray(losses[-1])


MODELS = {
    "mmoe": lambda: (mmoe(6, TASKS, experts=3, sizes=(16, 8), hidden=8), examples((6,))),
    "cross_stitch": lambda: (cross_stitch(6, TASKS, sizes=(16, 8)), examples((6,))),
    "multi_camera": lambda: (
        multi_camera(2, TASKS, channels=(1, 8, 8), features=16, hidden=16),
        examples((2, 4, 4, 1)),
    ),
}


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("mmoe", "parameters"),
        ("mmoe", "representation"),
        ("cross_stitch", "parameters"),
        ("multi_camera", "parameters"),
        ("multi_camera", "representation"),
    ],
)
def test_both_losses_fall(name: str, mode: str):
    model, (x, targets) = MODELS[name]()
    before, after = train(model, x, targets, mode)
    assert np.all(after < 0.5 * before), (before, after)


@pytest.mark.parametrize("mode", ["parameters", "representation"])
def test_routing_trains(mode: str):
    x, targets = examples((6,))
    before, after = train(snr(6, TASKS, features=16), Inputs(x, None), targets, mode)
    assert np.all(after < 0.5 * before), (before, after)


@pytest.mark.parametrize("name", ["mmoe", "multi_camera"])
def test_heads_read_their_own_copy_and_parameters_only(name: str):
    model, (x, targets) = MODELS[name]()
    shared, own = model.init(jax.random.key(0))
    decode = per_task_decode(
        {
            task: lambda own, z, batch, task=task: mean_square(
                model.heads[task](own, z, batch), targets[task]
            )
            for task in TASKS
        }
    )
    z = model.encode(shared, x)
    zs = jax.random.normal(jax.random.key(1), (2, *z.shape))
    check_decode(decode, own, zs, x)


def test_experts_are_mixed_by_each_tasks_gate():
    model = mmoe(3, TASKS, experts=2, sizes=(4,), hidden=5)
    shared, own = model.init(jax.random.key(0))
    x = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    z = np.asarray(model.encode(shared, x))
    layer = shared["layers"][0]
    for e in range(2):
        want = np.maximum(x @ layer["kernel"][...][e] + layer["bias"][...][e], 0)
        np.testing.assert_allclose(z[:, e], want, rtol=1e-5, atol=1e-6)
    logits = x @ np.asarray(own["a"]["gate"]["kernel"][...])
    share = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    mixed = (share[..., None] * z).sum(1)
    first, second = own["a"]["layers"]["layers"][0], own["a"]["layers"]["layers"][1]
    hidden = np.maximum(mixed @ first["kernel"][...] + first["bias"][...], 0)
    want = hidden @ second["kernel"][...] + second["bias"][...]
    np.testing.assert_allclose(model.heads["a"](own["a"], z, x), want, rtol=1e-4, atol=1e-6)


def test_cross_stitch_gramian_of_representations_is_diagonal():
    """Why it says that MGDA-UB does not apply."""
    model, (x, targets) = MODELS["cross_stitch"]()
    shared, own = model.init(jax.random.key(0))
    z = model.encode(shared, x)
    grads = [
        jax.grad(lambda z, t=t: mean_square(model.heads[t](own[t], z, x), targets[t]))(z)
        for t in TASKS
    ]
    assert jnp.vdot(*grads) == 0 and all(jnp.any(g) for g in grads)


def test_columns_of_a_cross_stitch_network_serve_all_tasks():
    model, (x, targets) = MODELS["cross_stitch"]()
    shared, own = model.init(jax.random.key(0))
    for task in TASKS:
        grads = jax.grad(
            lambda s, t=task: mean_square(model.heads[t](own[t], model.encode(s, x), x), targets[t])
        )(shared)
        for leaf in jax.tree.leaves(grads["columns"]):
            assert jnp.any(leaf)


def test_gates_are_hard_concrete():
    log_alpha = jnp.zeros(20_000)
    drawn = np.asarray(gates(log_alpha, jax.random.key(0)))
    assert drawn.min() == 0 and drawn.max() == 1
    # P(s > 0) in closed form, against the draws; five standard errors.
    share = float(expected_open(log_alpha)) / len(drawn)
    assert abs((drawn > 0).mean() - share) < 5 * np.sqrt(share * (1 - share) / len(drawn))
    np.testing.assert_allclose(gates(jnp.array([-20.0, 0.0, 20.0]), None), [0, 0.5, 1], atol=1e-6)


def test_the_penalty_of_shared_gates_reaches_them_through_the_representation():
    x, targets = examples((6,))
    model = snr(6, TASKS, features=8)
    inputs = Inputs(x, None)

    def heads(weight):
        return {
            task: lambda own, z, batch, task=task: (
                mean_square(model.heads[task](own, z, batch), targets[task]) + weight * z.open_gates
            )
            for task in TASKS
        }

    shared, own = model.init(jax.random.key(0))
    decode = per_task_decode(heads(1e3))
    oracle = multitask_value_and_grad(model.encode, decode, min_norm(), 2)
    _, (grads, _), _ = jax.jit(oracle)(shared, own, inputs, oracle.init())
    penalty = jax.grad(expected_open)(shared["log_alpha"][...])
    # Weights sum to one, so it counts once, whatever they are; the losses' share is < 1 / 60.
    np.testing.assert_allclose(grads["log_alpha"][...] / 1e3, penalty, rtol=1 / 60)


def test_soft_sharing_trains_under_exact_mgda_and_draws_encoders_together():
    x, targets = examples((6,))
    model = soft_sharing(6, TASKS, sizes=(16, 8))

    def train_with(strength: float):
        def tied(task: str):
            def loss(own, z, batch):
                out = model.heads[task](own, z, batch)
                return (
                    mean_square(out, targets[task])
                    + strength * z.distances[sorted(TASKS).index(task)]
                )

            return loss

        decode = per_task_decode({task: tied(task) for task in TASKS})
        oracle = multitask_value_and_grad(
            model.encode, decode, min_norm(), len(TASKS), mode="parameters"
        )
        tx = optax.adam(1e-2)

        @jax.jit
        def run(params):
            def step(carry, _):
                params, opt, state = carry
                (losses, _), grads, state = oracle(*params, x, state)
                updates, opt = tx.update(grads, opt, params)
                return (optax.apply_updates(params, updates), opt, state), losses

            return lax.scan(step, (params, tx.init(params), oracle.init()), None, STEPS)

        ((encoders, _), _, _), history = run(jax.jit(model.init)(jax.random.key(0)))
        return history, float(distances(encoders).sum())

    free, apart = train_with(0.0)
    for task in TASKS:
        assert free[task][-1] < 0.5 * free[task][0]
    tied, near = train_with(0.03)
    for task in TASKS:
        assert tied[task][-1] < tied[task][0]
    assert near < 0.2 * apart


def test_distances_are_the_squared_ones():
    stacked = {
        "w": jnp.array([[1.0, 2.0], [3.0, 2.0], [1.0, 0.0]]),
        "b": jnp.array([0.0, 1.0, 3.0]),
    }
    got = distances(stacked)
    flat = np.array([[1, 2, 0], [3, 2, 1], [1, 0, 3]])
    want = [sum(((flat[t] - flat[s]) ** 2).sum() for s in range(3)) / 2 for t in range(3)]
    np.testing.assert_allclose(got, want)


def test_tasks_with_inputs_of_their_own_share_an_encoder():
    """No common representation: exact MGDA on one forward a task (mode="per_task")."""
    model, (x, targets) = MODELS["mmoe"]()
    other = x[::-1]
    batch = {"a": x, "b": other}
    goal = {"a": targets["a"], "b": targets["b"][::-1]}
    decode = per_task_decode(
        {
            task: lambda own, z, batch, task=task: mean_square(
                model.heads[task](own, z, batch[task]), goal[task]
            )
            for task in TASKS
        }
    )
    oracle = multitask_value_and_grad(model.encode, decode, min_norm(), 2, mode="per_task")
    params, tx = model.init(jax.random.key(0)), optax.adam(1e-2)

    @jax.jit
    def run(params):
        def step(carry, _):
            params, opt, state = carry
            (losses, _), grads, state = oracle(*params, batch, state)
            updates, opt = tx.update(grads, opt, params)
            return (optax.apply_updates(params, updates), opt, state), losses

        return lax.scan(step, (params, tx.init(params), oracle.init()), None, STEPS)[1]

    losses = run(params)
    for task in TASKS:
        assert losses[task][-1] < 0.5 * losses[task][0]


@pytest.mark.parametrize("name", NETWORKS)
def test_every_architecture_gives_the_digits_two_finite_losses(name: str):
    size = LeNetSize(side=10, kernels=(3, 3), channels=(2, 2), features=4, hidden=4)
    split = Split(np.full((6, 10, 10), 9, np.uint8), np.full((6, 2), 3, np.int32))
    problem = digit_pairs(Dataset(split, split, split, 0.1, 0.3), NETWORKS[name](size))

    @jax.jit
    def losses(key):
        shared, own = problem.init(key)
        batch = problem.prepare(split, key)
        z = problem.encode(shared, batch)
        return problem.decode(own, jax.tree.map(lambda a: jnp.stack([a, a]), z), batch)

    out = losses(jax.random.key(0))
    assert sorted(out) == ["left", "right"]
    assert all(0.5 < out[task] < 10 for task in out)  # about log 10 before any training
