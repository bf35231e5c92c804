"""Floating-point operations and memory of a step: the model of docs/cost.md beside XLA's count.

    python -m benchmarks.cost_model [--tasks T ...]

Dense encoder 784-512-512-64 and T binary heads, batch 256. Nothing is run: the programs are
compiled, and their cost and memory analyses read.
"""

import argparse
from typing import Any

import jax
import jax.numpy as jnp

import mgda_jax
from benchmarks.step import BATCH, Model, dense_model
from mgda_jax.oracle import Exact
from mgda_jax.weighting import min_norm

SIZES = (784, 512, 512, 64)


def products(sizes: tuple[int, ...]) -> tuple[int, int, int]:
    """Operations of the encoder's forward pass, of its dθ, and of its dz (none for the input)."""
    layers = [2 * BATCH * m * n for m, n in zip(sizes[:-1], sizes[1:], strict=True)]
    return sum(layers), sum(layers), sum(layers[1:])


def modelled(way: str, tasks: int) -> int:
    """Operations of a step by docs/cost.md, without what is of order BATCH · T · features."""
    forward, weights, inputs = products(SIZES)
    heads = 3 * 2 * BATCH * tasks * SIZES[-1]
    shared = sum(m * n for m, n in zip(SIZES[:-1], SIZES[1:], strict=True))
    if way == "summed loss":
        return forward + weights + inputs + heads
    if way == "representation":
        rows = BATCH * SIZES[-1]
        return forward + weights + inputs + heads + 2 * tasks**2 * rows + 2 * tasks * rows
    return forward + tasks * (weights + inputs) + heads + 2 * tasks**2 * shared + 2 * tasks * shared


def program(way: str, model: Model) -> Any:
    """The compiled gradients of one way."""
    parameters = model.shared, model.own

    def plain(parameters, batch):
        def total(parameters):
            z = model.encode(parameters[0], batch)
            zs = jnp.broadcast_to(z, (model.num_tasks, *z.shape))
            return jnp.sum(model.decode(parameters[1], zs, batch))

        return jax.grad(total)(parameters)

    if way == "summed loss":
        return jax.jit(plain).lower(parameters, model.batch).compile()
    # Not in a loop over the tasks, whose body XLA counts once.
    mode = "representation" if way == "representation" else Exact(pullbacks="vmap")
    oracle = mgda_jax.multitask_value_and_grad(
        model.encode, model.decode, min_norm(), model.num_tasks, mode=mode
    )

    def step(parameters, batch):
        shared, own = parameters
        return oracle(shared, own, batch, oracle.init())[1]

    return jax.jit(step).lower(parameters, model.batch).compile()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", type=int, nargs="+", default=[10, 40], metavar="T")
    arguments = parser.parse_args()
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}; operations in millions\n")
    print("| T | gradients by | the model | XLA's count | ratio | temporaries, MiB |")
    print("| ---: | --- | ---: | ---: | ---: | ---: |")
    for tasks in arguments.tasks:
        model = dense_model(tasks, *SIZES)
        for way in ("summed loss", "representation", "exact"):
            compiled = program(way, model)
            counted = compiled.cost_analysis()["flops"]
            expected = modelled(way, tasks)
            memory = compiled.memory_analysis().temp_size_in_bytes / 2**20
            print(
                f"| {tasks} | {way} | {expected / 1e6:.0f} | {counted / 1e6:.0f} "
                f"| {counted / expected:.2f} | {memory:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
