"""Eight devices: only (T, T) numbers cross the mesh, and the answer is the one-device answer."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
PROGRAM = '''
import json, re
import jax, jax.numpy as jnp, numpy as np, optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
import mgda_jax
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
    spread = step(shared, own, jax.device_put(x, NamedSharding(mesh, P("data"))))
    pairs = zip(jax.tree.leaves(alone), jax.tree.leaves(spread), strict=True)
    out[f"data {mode}"] = max(float(np.max(np.abs(np.subtract(p, q)))) for p, q in pairs)
print(json.dumps(out))
'''


@pytest.fixture(scope="module")
def report():
    flags = "--xla_force_host_platform_device_count=8"
    env = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=env, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


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
