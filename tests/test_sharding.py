"""Eight devices: only (T, T) numbers cross the mesh, and the answer is the one-device answer."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.collectives import collectives

ROOT = Path(__file__).parent.parent
PROGRAM = '''
import json, re
import jax, jax.numpy as jnp, numpy as np, optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
import mgda_jax
from benchmarks.collectives import collectives
from mgda_jax.weighting import min_norm

assert len(jax.devices()) == 8
T, shape = 3, (16, 64)
rows = np.random.default_rng(0).standard_normal((T, *shape)).astype(np.float32)
params = np.zeros(shape, np.float32)
tx = mgda_jax.mgda(T)

def update(rows, params):
    updates, state = tx.update({"w": rows}, tx.init({"w": params}), {"w": params})
    return updates["w"], state.task_weights

def gathered(text):
    """Elements of every all-gather's result."""
    shapes = re.findall(r"= \\w+\\[([\\d,]*)\\][^=]*? all-gather", text)
    return [int(np.prod([int(n) for n in s.split(",") if n])) for s in shapes]

out = {"expected": [np.asarray(x).tolist() for x in jax.jit(update)(rows, params)]}
for kind in (AxisType.Auto, AxisType.Explicit):
    mesh = jax.make_mesh((8,), ("x",), axis_types=(kind,))
    for name, spec in (("minor", (None, "x")), ("major", ("x", None))):
        a = jax.device_put(rows, NamedSharding(mesh, P(None, *spec)))
        b = jax.device_put(params, NamedSharding(mesh, P(*spec)))
        with jax.set_mesh(mesh):
            compiled = jax.jit(update).lower(a, b).compile()
            values = compiled(a, b)
        out[f"{kind.name} {name}"] = {
            "values": [np.asarray(x).tolist() for x in values],
            "gathered": gathered(compiled.as_text()),
            "sharded": values[0].sharding.is_equivalent_to(b.sharding, 2),
        }

# Data parallel: gradients are averaged over the batch before the Gramian is formed.
x = np.random.default_rng(1).standard_normal((16, 4)).astype(np.float32)
encode = lambda s, x: jnp.tanh(x @ s)
heads = {
    "a": lambda own, z, x: jnp.mean((z @ own) ** 2),
    "b": lambda own, z, x: jnp.mean((z @ own - 1) ** 2),
}
shared = np.full((4, 3), 0.3, np.float32)
own = {"a": np.ones(3, np.float32), "b": np.ones(3, np.float32)}
mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
for mode in ("representation", "parameters"):
    oracle = mgda_jax.multitask_value_and_grad(
        encode, mgda_jax.per_task_decode(heads), min_norm(), 2, mode=mode)
    step = jax.jit(lambda s, o, x: oracle(s, o, x, oracle.init())[1:])
    alone = step(shared, own, x)
    divided = shared, own, jax.device_put(x, NamedSharding(mesh, P("data")))
    compiled = step.lower(*divided).compile()
    out[f"moved {mode}"] = sum(map(sum, collectives(compiled.as_text()).values()))
    spread = compiled(*divided)
    pairs = zip(jax.tree.leaves(alone), jax.tree.leaves(spread), strict=True)
    out[f"data {mode}"] = max(float(np.max(np.abs(np.subtract(p, q)))) for p, q in pairs)
print(json.dumps(out))
'''


MAPPED = """
import json
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, PartitionSpec as P
import mgda_jax
from mgda_jax import aggregate, multitask_value_and_grad, per_task_decode, task_gradients
from mgda_jax import weighting as rules
from mgda_jax.mapped_axis import vary_like
from mgda_jax.oracle import Lean

rng = np.random.default_rng(2)
normal = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)
X = {"x": normal(16, 4), "a": normal(16), "b": normal(16)}
SHARED, OWN = normal(4, 3), {"a": normal(3), "b": normal(3)}
IS_SHARED = {"shared": True, "own": False}

def encode(shared, batch):
    return jnp.tanh(batch["x"] @ shared)

def head(name, own, z, batch):
    return jnp.mean((z @ own - batch[name]) ** 2)

heads = {n: lambda own, z, batch, n=n: head(n, own, z, batch) for n in "ab"}
per_task = {n: lambda own, z, batch, n=n: head(n, own, z, batch[n]) for n in "ab"}

def losses_fn(params, batch):
    z = encode(params["shared"], batch)
    return {n: head(n, params["own"][n], z, batch) for n in "ab"}

ORACLES = {
    "representation": (rules.nash_mtl(), {}),
    "representation, losses": (rules.min_norm(normalization="loss+"), dict(scope="all")),
    "exact": (rules.min_norm(), dict(mode="parameters")),
    "exact, seldom": (rules.min_norm(), dict(mode="parameters", every=2)),
    "lean": (rules.min_norm(), dict(mode=Lean())),
    "a batch per task": (rules.min_norm(), dict(mode="per_task")),
    "rows": (rules.coordinate_median(), dict(mode="parameters")),
    "losses only": (rules.gls(), {}),
    "weights only": (rules.fixed({"a": 0.5, "b": 2.0}), dict(mode="parameters")),
}

def everything(shared, own, batch, axis_name=None):
    out = {}
    for name, (rule, options) in ORACLES.items():
        apart = options.get("mode") == "per_task"
        oracle = multitask_value_and_grad(encode, per_task_decode(per_task if apart else heads),
                                          rule, 2, axis_name=axis_name, **options)
        given = {"a": batch, "b": batch | {"x": -batch["x"]}} if apart else batch
        (losses, _), grads, state = oracle(shared, own, given, oracle.init(shared),
                                           loss_scale=4.0)
        out[name] = losses, grads, state.task_weights
    params = {"shared": shared, "own": own}
    active = jnp.array([True, True])
    # Each device's own gradients: of parameters that vary, where JAX asks.
    own_copy = jax.tree.map(lambda leaf: vary_like(leaf, batch["x"]), params)
    for name, given, axes in (("task_gradients", params, (axis_name, None)),
                              ("aggregate", own_copy, (None, axis_name))):
        losses, grads = task_gradients(losses_fn, IS_SHARED, axis_name=axes[0])(
            given, batch, active=active)
        tx = aggregate(rules.min_norm(normalization="loss+"), 2, IS_SHARED, axis_name=axes[1])
        updates, state = tx.update(grads, tx.init(params), params, losses=losses)
        out[name] = updates, state.task_weights
    return out

EXPECTED = jax.jit(everything)(SHARED, OWN, X)
out = {}

def record(how, actual):
    for name in EXPECTED:
        pairs = zip(jax.tree.leaves(actual[name]), jax.tree.leaves(EXPECTED[name]), strict=True)
        out[f"{how}: {name}"] = max(
            float(np.max(np.abs(a - b)) / max(1.0, np.max(np.abs(b)))) for a, b in pairs)

mesh = jax.make_mesh((8,), ("d",), axis_types=(AxisType.Auto,))
on_one = lambda *arguments: everything(*arguments, "d")
for how, check in (("shard_map", True), ("shard_map without check_vma", False)):
    mapped = jax.shard_map(on_one, mesh=mesh, in_specs=(P(), P(), P("d")), out_specs=P(),
                           check_vma=check)
    record(how, jax.jit(mapped)(SHARED, OWN, X))
split = jax.tree.map(lambda leaf: leaf.reshape(8, 2, *leaf.shape[1:]), X)
mapped = jax.pmap(on_one, axis_name="d", in_axes=(None, None, 0))(SHARED, OWN, split)
record("pmap", jax.tree.map(lambda leaf: leaf[0], mapped))
record("pmap on another device", jax.tree.map(lambda leaf: leaf[5], mapped))
mapped = jax.jit(jax.vmap(on_one, in_axes=(None, None, 0), axis_name="d"))(SHARED, OWN, split)
record("vmap", jax.tree.map(lambda leaf: leaf[3], mapped))

mesh = jax.make_mesh((2, 4), ("data", "more"), axis_types=(AxisType.Auto,) * 2)
on_one = lambda *arguments: everything(*arguments, ("data", "more"))
mapped = jax.shard_map(on_one, mesh=mesh, in_specs=(P(), P(), P(("data", "more"))), out_specs=P())
record("two axes", jax.jit(mapped)(SHARED, OWN, X))

# Without the name: the gradients of the sum of the devices' losses, as jax.grad gives them.
def plain(shared, own, batch):
    losses, grads = task_gradients(losses_fn, IS_SHARED)({"shared": shared, "own": own}, batch)
    return jax.tree.map(lambda leaf: jax.lax.psum(leaf, "d"), losses), grads

mesh = jax.make_mesh((8,), ("d",), axis_types=(AxisType.Auto,))
mapped = jax.shard_map(plain, mesh=mesh, in_specs=(P(), P(), P("d")), out_specs=P())
losses, grads = jax.jit(mapped)(SHARED, OWN, X)
expected = jax.jit(lambda *args: task_gradients(losses_fn, IS_SHARED)(*args))(
    {"shared": SHARED, "own": OWN}, X)
pairs = zip(jax.tree.leaves((losses, grads)), jax.tree.leaves(expected), strict=True)
out["no name: task_gradients"] = max(float(np.max(np.abs(a / 8 - b))) for a, b in pairs)

def forgotten(shared, own, batch):
    oracle = multitask_value_and_grad(encode, per_task_decode(heads), rules.min_norm(), 2)
    return oracle(shared, own, batch, oracle.init())[1:]

try:
    jax.shard_map(forgotten, mesh=mesh, in_specs=(P(), P(), P("d")), out_specs=P())(SHARED, OWN, X)
except ValueError as error:
    out["forgotten"] = str(error)
print(json.dumps(out))
"""


PROCESSES = """
import json, sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from mgda_jax import multitask_value_and_grad, per_task_decode
from mgda_jax.weighting import min_norm

port, number = int(sys.argv[1]), int(sys.argv[2])
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"127.0.0.1:{port}", 2, number)
x = np.random.default_rng(3).standard_normal((8, 4)).astype(np.float32)
shared, own = np.full((4, 3), 0.3, np.float32), {n: np.ones(3, np.float32) for n in "ab"}
heads = {
    "a": lambda own, z, x: jnp.mean((z @ own) ** 2),
    "b": lambda own, z, x: jnp.mean((z @ own - x[:, 0]) ** 2),
}

def step(axis_name):
    oracle = multitask_value_and_grad(lambda s, x: jnp.tanh(x @ s), per_task_decode(heads),
                                      min_norm(), 2, axis_name=axis_name)
    return lambda s, o, x: oracle(s, o, x, oracle.init())[1:]

alone = jax.jit(step(None))(shared, own, x)
mesh = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Auto,))
everywhere, split = NamedSharding(mesh, P()), NamedSharding(mesh, P("d"))
put = lambda tree: jax.tree.map(
    lambda leaf: jax.make_array_from_process_local_data(everywhere, leaf), tree)
mine = jax.make_array_from_process_local_data(split, x[4 * number : 4 * number + 4])
mapped = jax.shard_map(step("d"), mesh=mesh, in_specs=(P(), P(), P("d")), out_specs=P())
spread = jax.jit(mapped)(put(shared), put(own), mine)
local = jax.tree.map(lambda leaf: np.asarray(leaf.addressable_data(0)), spread)
pairs = zip(jax.tree.leaves(alone), jax.tree.leaves(local), strict=True)
print(json.dumps(max(float(np.max(np.abs(np.asarray(a) - b))) for a, b in pairs)))
"""


def run(program):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    env = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def report():
    return run(PROGRAM)


@pytest.fixture(scope="module")
def mapped():
    return run(MAPPED)


HOW = [
    "shard_map",
    "shard_map without check_vma",
    "pmap",
    "pmap on another device",
    "vmap",
    "two axes",
]


@pytest.mark.parametrize("how", HOW)
def test_eight_devices_give_what_one_gives(mapped, how):
    found = {name: error for name, error in mapped.items() if name.startswith(f"{how}: ")}
    assert len(found) == 11
    assert max(found.values()) <= 256 * np.finfo(np.float32).eps, found


def test_without_the_axis_a_sum_over_devices_or_an_error(mapped):
    assert mapped["no name: task_gradients"] <= 64 * np.finfo(np.float32).eps
    assert "axis_name: the Gramian varies over the mapped axes ['d']" in mapped["forgotten"]


@pytest.mark.parametrize("case", ["Auto minor", "Auto major", "Explicit minor", "Explicit major"])
def test_parameter_axis_sharded(report, case):
    eps = np.finfo(np.float32).eps
    for value, expected in zip(report[case]["values"], report["expected"], strict=True):
        np.testing.assert_allclose(value, expected, atol=64 * eps)
    assert sum(report[case]["gathered"]) <= 9
    assert report[case]["sharded"]


@pytest.mark.parametrize("mode", ["representation", "parameters"])
def test_batch_sharded(report, mode):
    assert report[f"data {mode}"] <= 64 * np.finfo(np.float32).eps


@pytest.mark.parametrize(
    ("mode", "numbers"),
    [
        # The encoder's 12 and the heads' 6 once, and the Gramian with its scale.
        ("representation", 12 + 6 + 2 * 2 + 1),
        ("parameters", 2 * 12 + 6),
    ],
)
def test_a_step_moves_what_the_cost_model_says(report, mode, numbers):
    assert report[f"moved {mode}"] == 4 * numbers


def test_collectives_are_counted_by_kind():
    text = """
    %a = f32[3,3]{1,0} all-reduce(f32[3,3]{1,0} %p), replica_groups={}
    %b = (bf16[4]{0}, f64[2,5]{1,0}) all-gather(bf16[2]{0} %q, f64[1,5]{1,0} %r)
    %c = f32[] add(f32[] %all-reduce, f32[] %s)
    """
    assert collectives(text) == {"all-reduce": [36], "all-gather": [8, 80]}


def test_two_processes_give_what_one_gives():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESSES, str(port), str(number)],
            env=env,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    try:
        for program in programs:
            out, errors = program.communicate(timeout=300)
            assert program.returncode == 0, errors[-3000:]
            assert json.loads(out.splitlines()[-1]) <= 64 * np.finfo(np.float32).eps
    finally:
        for program in programs:
            program.kill()
