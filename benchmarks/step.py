"""What a multi-task step costs, relative to the step on the summed loss.

    python -m benchmarks.step [--rounds N] [--only STEP ...] [--models lenet wide many deep]

Four models: LeNet with 2 heads (21k shared parameters), a dense encoder
784-512-512-64 with 40 binary heads (697k shared), one of 1836-128-64 with 159
(243k shared) and one of twelve layers 1024-1024 with 16 (12.6M shared), batch 256.
All programs of a model are timed in turn, round after round; a ratio is the median over
the rounds of (program / plain `jax.grad` of the summed loss) in that round, so a
machine whose speed drifts does not spoil it. Temporaries are XLA's own count.
"""

import argparse
import functools
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import mgda_jax
from experiments.models.lenet import LeNetSize, lenet
from mgda_jax.oracle import Lean
from mgda_jax.weighting import Weighting, min_norm, uniform

PyTree = Any
BATCH = 256


class Model(NamedTuple):
    """An encoder–decoder problem: parameters, batch, functions."""

    name: str
    num_tasks: int
    shared: PyTree
    own: PyTree
    batch: PyTree
    encode: Callable
    decode: Callable


def lenet_model() -> Model:
    """The paper's network on MultiMNIST shapes, dropout on."""
    encoder, head = lenet(LeNetSize())
    keys = jax.random.split(jax.random.key(0), 6)
    names = ("left", "right")
    own = {name: head.init(key) for name, key in zip(names, keys, strict=False)}
    batch = {"images": jax.random.normal(keys[2], (BATCH, 28, 28, 1)), "key": keys[3]}
    for name, key in zip(names, keys[4:], strict=True):
        batch[name] = jax.random.randint(key, (BATCH,), 0, 10)

    def encode(shared, batch):
        return encoder.apply(shared, batch["images"], batch["key"])

    def loss(own, z, batch, name):
        logits = head.apply(own, z, jax.random.fold_in(batch["key"], len(name)))
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, batch[name]).mean()

    heads = {name: lambda o, z, b, name=name: loss(o, z, b, name) for name in names}
    decode = mgda_jax.per_task_decode(heads)
    return Model("LeNet, 2 tasks", 2, encoder.init(keys[5]), own, batch, encode, decode)


def dense_model(num_tasks: int, *sizes: int, batch_size: int = BATCH) -> Model:
    """Dense layers and binary heads, stacked."""
    keys = iter(jax.random.split(jax.random.key(1), 16))
    shared = [
        {"w": jax.random.normal(next(keys), (m, n)) / m**0.5, "b": jnp.zeros(n)}
        for m, n in zip(sizes[:-1], sizes[1:], strict=True)
    ]
    own = {
        "w": jax.random.normal(next(keys), (num_tasks, sizes[-1])) / 8,
        "b": jnp.zeros(num_tasks),
    }
    batch = {
        "x": jax.random.normal(next(keys), (batch_size, sizes[0])),
        "y": jax.random.bernoulli(next(keys), 0.5, (num_tasks, batch_size)).astype(jnp.float32),
    }

    def encode(shared, batch):
        z = batch["x"]
        for layer in shared:
            z = jax.nn.relu(z @ layer["w"] + layer["b"])
        return z

    def decode(own, zs, batch):
        logits = jnp.einsum("tbd,td->tb", zs, own["w"]) + own["b"][:, None]
        return jnp.mean(optax.losses.sigmoid_binary_cross_entropy(logits, batch["y"]), axis=1)

    name = f"dense {'-'.join(map(str, sizes))}, {num_tasks} tasks"
    return Model(name, num_tasks, shared, own, batch, encode, decode)


MODELS: dict[str, Callable[[], Model]] = {
    "lenet": lenet_model,
    "wide": lambda: dense_model(40, 784, 512, 512, 64),
    "many": lambda: dense_model(159, 1836, 128, 64),
    "deep": lambda: dense_model(16, *[1024] * 13),
}


def programs(model: Model, gramian_rule: Weighting | None = None) -> dict:
    """One training step (gradients and SGD) per way of getting them: name → step, arguments.

    Args:
      model: the model.
      gramian_rule: in place of `min_norm()`.
    """
    solving = gramian_rule or min_norm()

    def apply(params, grads):
        return jax.tree.map(lambda p, g: p - 1e-3 * g, params, grads)

    def on_the_sum(copies_of):
        def step(params, batch):
            def total(params):
                shared, own = params
                losses = model.decode(own, copies_of(shared, batch), batch)
                return jnp.sum(jnp.stack(jax.tree.leaves(losses))), losses

            grads, losses = jax.grad(total, has_aux=True)(params)
            return losses, apply(params, grads)

        return step, ((model.shared, model.own), model.batch)

    def plain(shared, batch):
        z = model.encode(shared, batch)
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (model.num_tasks, *x.shape)), z)

    def branch(shared, batch):
        z = model.encode(shared, batch)
        return mgda_jax.branch(z, model.num_tasks, solving, stacked=True)

    def branched(shared, batch):
        copies = mgda_jax.branched(model.encode, model.num_tasks, solving)(shared, batch)
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *copies)

    out: dict[str, tuple[Callable, tuple]] = {
        "summed loss (jax.grad)": on_the_sum(plain),
        "branch": on_the_sum(branch),
        "branched": on_the_sum(branched),
    }
    variants = {
        "uniform": (uniform(), {}),
        "mgda_ub": (solving, {"mode": "representation"}),
        "mgda exact": (solving, {"mode": "exact"}),
        "mgda exact, lean": (solving, {"mode": Lean()}),
    }
    for name, (rule, options) in variants.items():
        oracle = mgda_jax.multitask_value_and_grad(
            model.encode, model.decode, rule, model.num_tasks, own_layout=None, **options
        )

        def step(params, batch, state, oracle=oracle):
            shared, own = params
            (losses, _), grads, state = oracle(shared, own, batch, state)
            return losses, apply(params, grads), state

        arguments = ((model.shared, model.own), model.batch, oracle.init())
        out[name] = (step, arguments)
    return out


class Cost(NamedTuple):
    """Of one step: its time relative to the summed loss, its time, XLA's count of temporaries."""

    step: str
    ratio: float
    milliseconds: float
    temporaries_mib: float


def measure(model: Model, rounds: int, only: list[str]) -> list[Cost]:
    """The costs of the summed loss and of the steps asked for, all for none."""
    named = enumerate(programs(model).items())
    return costs(dict(item for i, item in named if i == 0 or not only or item[0] in only), rounds)


def costs(steps: dict[str, tuple[Callable, tuple]], rounds: int) -> list[Cost]:
    """The costs of steps and their arguments, ratios to the first."""
    compiled = {name: jax.jit(step).lower(*args).compile() for name, (step, args) in steps.items()}
    calls = {
        name: functools.partial(program, *steps[name][1]) for name, program in compiled.items()
    }
    times = in_turn(calls, rounds)
    base = times[next(iter(times))]
    return [
        Cost(
            name,
            ratio(values, base),
            1e3 * statistics.median(values),
            _temporaries(compiled[name]) / 2**20,
        )
        for name, values in times.items()
    ]


def _temporaries(program: jax.stages.Compiled) -> float:
    """Bytes, NaN where the backend does not count them."""
    analysis = program.memory_analysis()
    return float("nan") if analysis is None else analysis.temp_size_in_bytes


def in_turn(calls: dict[Any, Callable[[], Any]], rounds: int) -> dict[Any, list[float]]:
    """Seconds of every call in every round, all in turn, after one call that is not timed."""
    times: dict[Any, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        jax.block_until_ready(call())
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            jax.block_until_ready(call())
            times[name].append(time.perf_counter() - start)
    return times


def ratio(times: list[float], base: list[float]) -> float:
    """The median over the rounds of the ratio in a round."""
    return statistics.median(t / b for t, b in zip(times, base, strict=True))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=41, help="timed rounds (default 41)")
    parser.add_argument("--only", nargs="+", default=[], metavar="STEP", help="steps to measure")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    arguments = parser.parse_args()
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}, batch {BATCH}\n")
    print("| model | step | ratio to the summed loss | ms | temporaries, MiB |")
    print("|---|---|---|---|---|")
    for name in arguments.models:
        model = MODELS[name]()
        for step, times, milliseconds, mib in measure(model, arguments.rounds, arguments.only):
            row = f"| {model.name} | {step} | {times:.2f} | {milliseconds:.2f} | {mib:.1f} |"
            print(row, flush=True)


if __name__ == "__main__":
    main()
