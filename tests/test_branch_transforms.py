"""`branch` and `branched` under JAX's transformations, on several devices, at several scales."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx
from flax.linen.fp8_ops import OVERWRITE_WITH_GRADIENT
from flax.serialization import from_bytes, to_bytes
from flax.training.train_state import TrainState

from mgda_jax import branch, branch_probe, branched
from mgda_jax import weighting as rules

EPS = float(np.finfo(np.float32).eps)
ROOT = Path(__file__).parent.parent
rng = np.random.default_rng(0)
X = jnp.asarray(rng.standard_normal((8, 3)), jnp.float32)
W = jnp.asarray(rng.standard_normal((3, 2)), jnp.float32)
OWN = jnp.asarray(rng.standard_normal((2, 2)), jnp.float32)


def encode(w, x):
    return jnp.tanh(x @ w)


def of_copies(copies, own):
    a, b = copies
    return jnp.mean((a @ own[0] - 1) ** 2) + 3 * jnp.mean((b @ own[1] + 1) ** 2)


def loss(w, own, probe=None, x=X, rule=None):
    return of_copies(branch(encode(w, x), 2, rule, probe=probe), own)


def exact(w, own, probe=None, x=X, rule=None):
    return of_copies(branched(encode, 2, rule)(w, x, probe=probe), own)


LAYERS = {"branch": loss, "branched": exact}
all_grads = functools.partial(jax.grad, argnums=(0, 1, 2))


def close(actual, expected, eps=64):
    def compare(a, b):
        np.testing.assert_allclose(a, b, rtol=0, atol=eps * EPS * max(1, np.max(np.abs(b))))

    jax.tree.map(compare, actual, expected)


@pytest.mark.parametrize("name", LAYERS)
def test_one_answer_under_jit_checkpoint_vmap_and_scan(name):
    grads = all_grads(LAYERS[name])
    probe = branch_probe(2)
    expected = jax.jit(grads)(W, OWN, probe)
    checkpointed = all_grads(jax.checkpoint(LAYERS[name]))
    close(jax.jit(checkpointed)(W, OWN, probe), expected)

    two = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), (W, OWN, probe))
    close(jax.tree.map(lambda leaf: leaf[1], jax.jit(jax.vmap(grads))(*two)), expected)

    def step(carry, _):
        w, own, probe = carry
        dw, down, probe = grads(w, own, probe)
        return (w - 0.1 * dw, own - 0.1 * down, probe), probe.task_weights

    end, weights = jax.jit(lambda c: jax.lax.scan(step, c, None, length=2))((W, OWN, probe))
    close(weights[0], expected[2].task_weights)
    w, own = W - 0.1 * expected[0], OWN - 0.1 * expected[1]
    after = jax.jit(grads)(w, own, probe)
    close(end[:2], (w - 0.1 * after[0], own - 0.1 * after[1]))


@pytest.mark.parametrize("exactly", [False, True])
def test_a_model_of_one_example_under_vmap_finds_the_weights_of_the_batch(exactly):
    def of_batch(w, own, probe):
        def one(x):
            if exactly:
                copies = branched(encode, 2, axis_name="batch")(w, x, probe=probe)
            else:
                copies = branch(encode(w, x), 2, probe=probe, axis_name="batch")
            return of_copies(copies, own)

        return jnp.mean(jax.vmap(one, axis_name="batch")(X))

    expected = all_grads(exact if exactly else loss)(W, OWN, branch_probe(2))
    actual = all_grads(of_batch)(W, OWN, branch_probe(2))
    close(actual[:2], expected[:2], 256)
    close(actual[2].task_weights, expected[2].task_weights, 256)


@pytest.mark.parametrize("name", LAYERS)
def test_to_further_differentiation_the_weights_are_constants(name):
    function = LAYERS[name]
    weights = jax.grad(function, argnums=2)(W, OWN, branch_probe(2)).task_weights

    def weighted(w):
        z = encode(w, X)
        a, b = jnp.mean((z @ OWN[0] - 1) ** 2), 3 * jnp.mean((z @ OWN[1] + 1) ** 2)
        return weights[0] * a + weights[1] * b

    def squared(grad):
        return lambda w: jnp.sum(grad(w) ** 2)

    second = jax.grad(squared(jax.grad(lambda w: function(w, OWN))))
    close(second(W), jax.grad(squared(jax.grad(weighted)))(W))
    tangent = jax.jvp(jax.grad(lambda w: function(w, OWN)), (W,), (W,))[1]
    close(tangent, jax.jvp(jax.grad(weighted), (W,), (W,))[1])


def test_forward_mode_through_the_layer_is_refused():
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(lambda w: loss(w, OWN), (W,), (W,))


def test_bfloat16_keeps_its_dtype_and_float32_weights():
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), (W, OWN, X))

    def of_half(w, own, probe):
        a, b = branch(jnp.tanh(half[2] @ w), 2, probe=probe)
        first = jnp.mean((a @ own[0] - 1) ** 2)
        return first + 3 * jnp.mean((b @ own[1] + 1) ** 2)

    dw, down, report = all_grads(of_half)(*half[:2], branch_probe(2))
    assert dw.dtype == down.dtype == jnp.bfloat16
    assert report.task_weights.dtype == jnp.float32
    expected = jax.grad(loss)(W, OWN)
    atol = 8 * float(jnp.finfo(jnp.bfloat16).eps) * np.max(np.abs(expected))
    np.testing.assert_allclose(dw.astype(jnp.float32), expected, atol=atol)


def test_parameters_and_probe_may_be_donated():
    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(w, probe):
        dw, probe = jax.grad(loss, argnums=(0, 2))(w, OWN, probe)
        return w - 0.1 * dw, probe

    w, probe = W + 0, branch_probe(2)
    new = step(w, probe)
    assert w.is_deleted()
    close(step(*new)[1].task_weights.sum(), 1.0)


def test_a_step_compiles_once():
    traces = []

    @jax.jit
    def step(w, probe):
        traces.append(1)
        return jax.grad(loss, argnums=(0, 2))(w, OWN, probe, rule=rules.nash_mtl())

    _, probe = step(W, branch_probe(2, rules.nash_mtl()))
    step(W, probe)
    assert len(traces) == 1


def test_nnx_jit_and_nnx_grad_take_the_layer_as_it_is():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):

        class Model(nnx.Module):
            def __init__(self):
                self.w, self.own = nnx.Param(W), nnx.Param(OWN)
                self.probe = nnx.Variable(branch_probe(2))

            def __call__(self, x, probe):
                return loss(self.w[...], self.own[...], probe, x)

        @nnx.jit
        def step(model, x):
            grad = nnx.grad(lambda m, p: m(x, p), argnums=(nnx.DiffState(0, nnx.Param), 1))
            grads, report = grad(model, model.probe.get_value())
            model.probe.set_value(report)
            return grads

        model = Model()
        grads = step(model, X)
    close(grads["w"][...], jax.grad(loss)(W, OWN))
    close(
        model.probe.get_value().task_weights,
        all_grads(loss)(W, OWN, branch_probe(2))[2].task_weights,
    )


def test_linen_overwrites_the_state_of_a_rule_with_its_gradient():
    rule = rules.gradvac()

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            w, own = self.param("w", lambda _: W), self.param("own", lambda _: OWN)
            variable = self.variable(OVERWRITE_WITH_GRADIENT, "probe", branch_probe, 2, rule)
            return loss(w, own, variable.value, x, rule)

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        variables = Model().init(jax.random.key(0), X)
        state = TrainState.create(apply_fn=Model().apply, params=variables, tx=optax.sgd(0.1))
        for _ in range(2):
            grads = jax.grad(lambda v, state=state: state.apply_fn(v, X))(state.params)
            state = state.apply_gradients(grads=grads)

    w, own, probe = W, OWN, branch_probe(2, rule)
    for _ in range(2):
        dw, down, probe = all_grads(loss)(w, own, probe, rule=rule)
        w, own = w - 0.1 * dw, own - 0.1 * down
    close(state.params["params"], {"w": w, "own": own})
    kept = state.params[OVERWRITE_WITH_GRADIENT]["probe"]
    close(kept, probe)
    assert not np.array_equal(kept.weighting.key, branch_probe(2, rule).weighting.key)
    restored = from_bytes(branch_probe(2, rule), to_bytes(kept))
    jax.tree.map(np.testing.assert_array_equal, restored, kept)


def linear(z, rows, scale, rule, probe):
    copies = branch(z, 3, rule, probe=probe)
    return scale * sum(jnp.vdot(row, copy) for row, copy in zip(rows, copies, strict=True))


@pytest.mark.parametrize(
    "rule, degree",
    [
        (rules.min_norm(), 1),
        (rules.min_norm(normalization="l2"), 1),
        (rules.cagrad(), 1),
        (rules.nash_mtl(), 0),
        (rules.fair_grad(), -1 / 3),
    ],
    ids=["min_norm", "l2", "cagrad", "nash_mtl", "fair_grad"],
)
def test_losses_times_c_give_the_gradient_times_c_to_the_rules_degree(rule, degree):
    rows = jnp.asarray(np.random.default_rng(3).standard_normal((3, 6)), jnp.float32)
    probe = branch_probe(3, rule)
    grad = jax.jit(jax.grad(lambda z, scale: linear(z, rows, scale, rule, probe)))
    one, many = grad(jnp.zeros(6), 1.0), grad(jnp.zeros(6), 1024.0)
    np.testing.assert_allclose(many, 1024.0**degree * one, rtol=512 * EPS)


def test_weights_of_ones_own_on_the_losses_are_part_of_the_losses():
    rows, own = jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.array([1.0, 2.0])

    def weighted(z, probe):
        a, b = branch(z, 2, probe=probe)
        return own[0] * jnp.vdot(rows[0], a) + own[1] * jnp.vdot(rows[1], b)

    gradient, report = jax.grad(weighted, argnums=(0, 1))(jnp.zeros(2), branch_probe(2))
    np.testing.assert_allclose(report.task_weights, [0.8, 0.2], rtol=4 * EPS)
    np.testing.assert_allclose(gradient, [0.8, 0.4], rtol=4 * EPS)


def test_nash_mtl_gives_one_direction_whatever_the_losses_weights():
    rows = jnp.asarray(np.random.default_rng(3).standard_normal((3, 6)), jnp.float32)
    rule, weighted = rules.nash_mtl(), jnp.array([[1.0], [4.0], [0.125]]) * rows
    grad = jax.jit(lambda r: jax.grad(linear)(jnp.zeros(6), r, 1.0, rule, branch_probe(3, rule)))
    np.testing.assert_allclose(grad(weighted), grad(rows), rtol=512 * EPS, atol=512 * EPS)


def test_pieces_of_a_batch_have_weights_of_their_own():
    pieces = jnp.split(X, 2)
    each = [all_grads(loss)(W, OWN, branch_probe(2), x) for x in pieces]
    whole = all_grads(loss)(W, OWN, branch_probe(2))
    weights = [report.task_weights for _, _, report in (*each, whole)]
    assert np.abs(weights[0] - weights[1]).max() > 0.01
    close((each[0][1] + each[1][1]) / 2, whole[1])
    assert np.abs((each[0][0] + each[1][0]) / 2 - whole[0]).max() > 0.01 * np.abs(whole[0]).max()


def temporaries(function, *args):
    return jax.jit(function).lower(*args).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("stacked", [False, True])
def test_the_copies_cost_no_memory(stacked):
    tasks, shape = 16, (64, 64)
    z, own = jnp.ones(shape), jnp.ones((tasks, 64))

    def heads(copies, own):
        if stacked:
            return jnp.sum(jnp.tanh(jnp.einsum("tbd,td->tb", copies, own)))
        return sum(jnp.sum(jnp.tanh(copy @ row)) for copy, row in zip(copies, own, strict=True))

    def with_branch(z, own):
        return heads(branch(jnp.sin(z), tasks, rules.uniform(), stacked=stacked), own)

    def without(z, own):
        z = jnp.sin(z)
        copies = jnp.broadcast_to(z, (tasks, *shape)) if stacked else (z,) * tasks
        return heads(copies, own)

    size = z.nbytes
    forward = temporaries(with_branch, z, own)
    assert forward <= temporaries(without, z, own) + size // 8
    assert stacked or forward <= 4 * size  # an einsum of its own lays the copies out
    backward = temporaries(jax.grad(with_branch, argnums=(0, 1)), z, own)
    # The cotangents, which are different, and once more where they are stacked.
    assert backward <= (2 * tasks + 4) * size


PROGRAM = """
import json
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from mgda_jax import branch_probe
from tests.test_branch_transforms import OWN, W, X, encode, of_copies
from mgda_jax import branch, branched

def grads(kind, axis_name=None):
    def loss(w, own, probe, x):
        if kind == "branched":
            copies = branched(encode, 2, axis_name=axis_name)(w, x, probe=probe)
        else:
            copies = branch(encode(w, x), 2, axis_name=axis_name, probe=probe)
        return of_copies(copies, own)
    return jax.grad(loss, argnums=(0, 1, 2))

probe, out = branch_probe(2), {}
for kind in ("branch", "branched"):
    expected = jax.jit(grads(kind))(W, OWN, probe, X)

    def record(name, actual):
        pairs = zip(jax.tree.leaves(actual[:2]), jax.tree.leaves(expected[:2]), strict=True)
        worst = max(float(np.max(np.abs(np.subtract(a, b)))) for a, b in pairs)
        weights = np.abs(np.subtract(actual[2].task_weights, expected[2].task_weights))
        out[f"{kind} {name}"] = max(worst, float(np.max(weights)))

    for axis_type in (AxisType.Auto, AxisType.Explicit):
        mesh = jax.make_mesh((4,), ("d",), axis_types=(axis_type,))
        with jax.set_mesh(mesh):
            put = lambda tree, spec: jax.device_put(tree, NamedSharding(mesh, spec))
            given = put((W, OWN, probe), P())
            record(f"jit {axis_type.name}", jax.jit(grads(kind))(*given, put(X, P("d"))))

    mesh = jax.make_mesh((4,), ("d",), axis_types=(AxisType.Auto,))

    def part(w, own, probe, x):
        *some, report = grads(kind, "d")(w, own, probe, x)
        return *jax.lax.pmean(some, "d"), report

    def checked(w, own, probe, x):  # JAX sums the gradients of replicated parameters itself
        *some, report = grads(kind, "d")(w, own, probe, x)
        return *jax.tree.map(lambda leaf: leaf / 4, some), report

    for name, function in (("check_vma", checked), ("no check_vma", part)):
        mapped = jax.shard_map(function, mesh=mesh, in_specs=(P(), P(), P(), P("d")),
                               out_specs=P(), check_vma=name == "check_vma")
        record(f"shard_map {name}", jax.jit(mapped)(W, OWN, probe, X))
    mapped = jax.pmap(part, axis_name="d", in_axes=(None, None, None, 0))
    spread = mapped(W, OWN, probe, X.reshape(4, 2, 3))
    record("pmap", jax.tree.map(lambda leaf: leaf[0], spread))

    def of_examples(w, own, probe):
        one = lambda x: grads(kind, "e")(w, own, probe, x[None])
        dw, down, report = jax.vmap(one, axis_name="e")(X)
        return dw.mean(0), down.mean(0), jax.tree.map(lambda leaf: leaf[0], report)

    record("vmap over examples", jax.jit(of_examples)(W, OWN, probe))

def forgotten(w, own, probe, x):
    return grads("branch")(w, own, probe, x)

try:
    jax.shard_map(forgotten, mesh=mesh, in_specs=(P(), P(), P(), P("d")), out_specs=P())(
        W, OWN, probe, X)
except ValueError as error:
    out["forgotten"] = str(error)
print(json.dumps(out))
"""


@pytest.fixture(scope="module")
def report():
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    env = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=env, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


SPREADS = ["jit Auto", "jit Explicit", "shard_map check_vma", "shard_map no check_vma", "pmap"]


@pytest.mark.parametrize("spread", [*SPREADS, "vmap over examples"])
@pytest.mark.parametrize("layer", LAYERS)
def test_a_batch_spread_over_devices_gives_the_one_device_answer(report, layer, spread):
    assert report[f"{layer} {spread}"] <= 256 * EPS


def test_a_forgotten_axis_name_is_named(report):
    assert "axis_name: the Gramian varies over the mapped axes ['d']" in report["forgotten"]
