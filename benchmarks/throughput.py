"""Examples a second of the MultiMNIST trainer, method by method, and of many seeds at once.

    python -m benchmarks.throughput [--methods LIST] [--seeds N] [--rounds N] [--steps N]

The trainer of experiments.multimnist itself (batches gathered, dropout, SGD, logging) with the
paper's network and batch of 256, on random images of MultiMNIST's shape. All programs are timed
in turn, round after round; a ratio is the median over the rounds, so a machine whose speed
drifts does not spoil it. Seeds at once are one vmapped program; their examples count together.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.models.lenet import LeNetSize
from experiments.multimnist.data import MEAN, STD, TASKS, Dataset, Split
from experiments.multimnist.networks import lenet_network
from experiments.multimnist.problem import digit_pairs
from experiments.trainer.methods import parse_methods
from experiments.trainer.problem import Problem
from experiments.trainer.training import Recipe, Run, Trainer

BATCH = 256
BASELINE = "uniform"
METHODS = (
    "single,uniform,uncertainty,gradnorm,mgda,mgda_ub,mgda_ub(normalization=loss+),"
    "nash_mtl,cagrad,upgrad_ub"
)


def random_digits(steps: int) -> Problem:
    """The problem on an epoch of that many steps."""
    rng = np.random.default_rng(0)
    count = steps * BATCH
    images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
    labels = rng.integers(0, 10, (count, 2), dtype=np.int32)
    split = Split(images, labels)
    return digit_pairs(Dataset(split, split, split, MEAN, STD), lenet_network(LeNetSize()))


def compiled_epoch(problem: Problem, method: str, steps: int, seeds: int) -> Callable[[], Any]:
    """A call that trains one epoch with some seeds at once, compiled and warm."""
    (parsed,) = parse_methods(method, TASKS, 9, steps)
    recipe = Recipe(BATCH, lambda rate: optax.sgd(rate, momentum=0.9), lambda epoch: jnp.ones(()))
    trainer = Trainer(problem, parsed, recipe)
    variant = parsed.variants[0]  # of single, the left digit's model
    runs = Run(
        seed=jnp.arange(seeds, dtype=jnp.uint32),
        learning_rate=jnp.full(seeds, 1e-3),
        coefficients=jnp.tile(variant.coefficients, (seeds, 1)),
        scored=jnp.tile(variant.scored, (seeds, 1)),
    )
    data = jax.device_put(problem.data["train"])
    state = jax.jit(jax.vmap(trainer.init))(runs)

    def epoch(state: Any, runs: Run, data: Any) -> Any:
        if seeds > 1:
            return jax.vmap(trainer.train_epoch, in_axes=(0, 0, None, None))(
                state, runs, data, jnp.int32(0)
            )
        one = jax.tree.map(lambda a: a[0], (state, runs))
        return trainer.train_epoch(one[0], one[1], data, jnp.int32(0))

    program = jax.jit(epoch).lower(state, runs, data).compile()
    jax.block_until_ready(program(state, runs, data))
    return lambda: jax.block_until_ready(program(state, runs, data))


def rounds_of_seconds(programs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list]:
    """Wall time of every program in every round."""
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, program in programs.items():
            start = time.perf_counter()
            program()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def main() -> None:
    """Print the two tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--methods", default=METHODS, help=f"default {METHODS}")
    parser.add_argument("--seeds", type=int, default=10, help="seeds at once (default 10)")
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds (default 7)")
    parser.add_argument("--steps", type=int, default=20, help="steps an epoch (default 20)")
    options = parser.parse_args()
    problem, examples = random_digits(options.steps), options.steps * BATCH
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}, batch {BATCH}\n")

    names = [m.spec for m in parse_methods(options.methods, TASKS, 9, options.steps)]
    if BASELINE not in names:
        names.insert(0, BASELINE)
    programs = {name: compiled_epoch(problem, name, options.steps, 1) for name in names}
    seconds = rounds_of_seconds(programs, options.rounds)
    print(f"| method | examples/s | relative to {BASELINE} |\n|---|---|---|")
    for name, values in seconds.items():
        ratio = statistics.median(b / t for b, t in zip(seconds[BASELINE], values, strict=True))
        print(f"| {name} | {examples / statistics.median(values):,.0f} | {ratio:.2f} |")

    counts = {f"{n}": n for n in (1, options.seeds)}
    print("\n| method | seeds at once | examples/s, all seeds | speed-up |\n|---|---|---|---|")
    for method in (BASELINE, "mgda", "mgda_ub"):
        many = {k: compiled_epoch(problem, method, options.steps, n) for k, n in counts.items()}
        seconds = rounds_of_seconds(many, options.rounds)
        for name, values in seconds.items():
            count = counts[name]
            pairs = zip(seconds["1"], values, strict=True)
            speedup = statistics.median(count * one / all_ for one, all_ in pairs)
            rate = count * examples / statistics.median(values)
            print(f"| {method} | {count} | {rate:,.0f} | {speedup:.2f} |", flush=True)


if __name__ == "__main__":
    main()
