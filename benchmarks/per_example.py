"""What a step on per-example gradients costs: every example of the batch a task.

    python -m benchmarks.per_example [--tasks 64 256] [--rule upgrad] [--rounds N]

A dense network 784-512-512-10 (670k parameters, cross-entropy) and a batch of T examples: the step
on the summed loss; T gradients by jax.vmap of jax.grad, stacked, and `aggregate`; the oracle's
`PerExample()`, and `Lean()` on T copies of the logits, for T up to 64. Times are relative to the
summed loss, all in turn, medians over rounds; temporaries are XLA's own count. The rule's solve is
in all but the first; the last line is one alone, of a Gaussian Gramian. One thread: set
OMP_NUM_THREADS=1 and XLA_FLAGS=--xla_cpu_multi_thread_eigen=false.
"""

import argparse
from typing import Any

import jax
import jax.numpy as jnp
import optax

import mgda_jax
from benchmarks.step import costs
from benchmarks.torchjd_rules import RULES
from mgda_jax.oracle import Lean, PerExample
from tests.problems import make

SIZES = (784, 512, 512, 10)
cross_entropy = optax.losses.softmax_cross_entropy_with_integer_labels


def network(params: Any, batch: Any) -> jax.Array:
    """Logits of one example or of a batch."""
    z = batch["x"]
    for layer in params[:-1]:
        z = jax.nn.relu(z @ layer["w"] + layer["b"])
    return z @ params[-1]["w"] + params[-1]["b"]


def losses(params: Any, batch: Any) -> jax.Array:
    return cross_entropy(network(params, batch), batch["y"])


def steps(num_tasks: int, rule: Any) -> dict[str, Any]:
    """name → (step, arguments)."""
    keys = iter(jax.random.split(jax.random.key(0), 8))
    params = [
        {"w": jax.random.normal(next(keys), (m, n)) / m**0.5, "b": jnp.zeros(n)}
        for m, n in zip(SIZES[:-1], SIZES[1:], strict=True)
    ]
    batch = {
        "x": jax.random.normal(next(keys), (num_tasks, SIZES[0])),
        "y": jax.random.randint(next(keys), (num_tasks,), 0, SIZES[-1]),
    }

    def apply(params, grads):
        return jax.tree.map(lambda p, g: p - 1e-3 * g, params, grads)

    def summed(params, batch):
        return apply(params, jax.grad(lambda p: jnp.sum(losses(p, batch)))(params))

    def stacked(params, batch):
        rows = jax.vmap(jax.grad(losses), (None, 0))(params, batch)
        tx = mgda_jax.aggregate(rule, num_tasks)
        return apply(params, tx.update(rows, tx.init(params), params)[0])

    def by(decode, mode):
        oracle = mgda_jax.multitask_value_and_grad(network, decode, rule, num_tasks, mode=mode)

        def step(params, batch):
            _, (grads, _), _ = oracle(params, (), batch, oracle.init())
            return apply(params, grads)

        return step

    def of_copies(own, zs, batch):
        return cross_entropy(jnp.einsum("ttc->tc", zs), batch["y"])

    found = {
        "summed loss": summed,
        "stacked": stacked,
        "PerExample()": by(lambda own, zs, batch: cross_entropy(zs, batch["y"]), PerExample()),
    }
    if num_tasks <= 64:
        found["Lean() on copies"] = by(of_copies, Lean())
    rows = make("gaussian", num_tasks)
    gram = jnp.asarray(rows @ rows.T, jnp.float32)

    def solve(gram):
        return rule.update(rule.init(num_tasks), gramian=gram)[0]

    every = {name: (step, (params, batch)) for name, step in found.items()}
    return every | {"the solve alone": (solve, (gram,))}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", type=int, nargs="+", default=[64, 256], help="batch sizes")
    parser.add_argument("--rule", default="upgrad", choices=list(RULES))
    parser.add_argument("--rounds", type=int, default=11, help="timed rounds (default 11)")
    given = parser.parse_args()
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}, {given.rule}\n")
    print("| T | step | ratio to the summed loss | ms | temporaries, MiB |")
    print("| ---: | --- | ---: | ---: | ---: |")
    for count in given.tasks:
        for name, ratio, milliseconds, mib in costs(
            steps(count, RULES[given.rule].ours()), given.rounds
        ):
            print(
                f"| {count} | {name} | {ratio:.2f} | {milliseconds:.2f} | {mib:.1f} |", flush=True
            )


if __name__ == "__main__":
    main()
