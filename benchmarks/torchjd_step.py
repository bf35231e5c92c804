"""The same training step in TorchJD and here, in one run, where torch and torchjd are installed.

    python -m benchmarks.torchjd_step [--models lenet wide] [--rules min_norm upgrad] [--rounds N]

LeNet with two heads and a dense encoder with forty of `benchmarks.step`, the same batch, float32,
SGD, batch 256. TorchJD: `mtl_backward` and `jac_to_grad` (all tasks in one vmap, and one after
another), the Gramian by `autogram`, and MGDA-UB put together of the same parts. Every time is
relative to the step on the summed loss in its own framework; "ours / theirs" is the ratio of
seconds to TorchJD's fastest step of the same kind, exact or on the representation. All steps run in
turn, round after round, medians over rounds. One thread each: set OMP_NUM_THREADS=1 and
XLA_FLAGS=--xla_cpu_multi_thread_eigen=false.
"""

import argparse
import copy
import functools
import os
import statistics
from collections.abc import Callable
from importlib import metadata
from typing import Any

import jax
import numpy as np

from benchmarks.step import BATCH, MODELS, Model, in_turn, programs, ratio
from benchmarks.torchjd_rules import torchjd
from mgda_jax.weighting import min_norm, upgrad

Calls = dict[str, Callable[[], Any]]
RULES = {"min_norm": (min_norm, "MGDA"), "upgrad": (upgrad, "UPGrad")}
SUM = "summed loss (jax.grad)"
EXACT = ["branched", "mgda exact", "mgda exact, lean"]
UB = ["branch", "mgda_ub"]
THEIR_UB = "mtl_backward on the representation"


def their_model(model: Model) -> tuple[Any, list[Any], Callable[[Any, int], Any], Any]:
    """(encoder, heads, loss of (output, task), inputs) in torch: the same layers."""
    import torch  # pyright: ignore[reportMissingImports]  (optional)
    from torch import nn  # pyright: ignore[reportMissingImports]  (optional)

    def tensor(name):
        return torch.from_numpy(np.array(model.batch[name]))

    if "images" in model.batch:
        encoder = nn.Sequential(
            *(nn.Conv2d(1, 10, 5), nn.MaxPool2d(2), nn.ReLU()),
            *(nn.Conv2d(10, 20, 5), nn.MaxPool2d(2), nn.Dropout2d(), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(320, 50), nn.ReLU()),
        )
        heads = [
            nn.Sequential(nn.Linear(50, 50), nn.ReLU(), nn.Dropout(), nn.Linear(50, 10))
            for _ in range(model.num_tasks)
        ]
        labels = [tensor(name).long() for name in ("left", "right")]
        images = tensor("images").movedim(3, 1).contiguous()
        return encoder, heads, lambda z, t: nn.functional.cross_entropy(z, labels[t]), images
    sizes = [layer["w"].shape for layer in model.shared]
    encoder = nn.Sequential(*(f for m, n in sizes for f in (nn.Linear(m, n), nn.ReLU())))
    heads = [
        nn.Sequential(nn.Linear(sizes[-1][1], 1), nn.Flatten(0)) for _ in range(model.num_tasks)
    ]
    binary, y = nn.functional.binary_cross_entropy_with_logits, tensor("y")
    return encoder, heads, lambda z, t: binary(z, y[t]), tensor("x")


def theirs(model: Model, rule: str) -> Calls:
    """A training step (gradients and SGD) per way of getting them."""
    import torch  # pyright: ignore[reportMissingImports]  (optional)
    import torchjd.aggregation  # pyright: ignore[reportMissingImports]  (optional)
    from torchjd.autogram import Engine  # pyright: ignore[reportMissingImports]  (optional)
    from torchjd.autojac import (  # pyright: ignore[reportMissingImports]  (optional)
        jac_to_grad,
        mtl_backward,
    )

    encoder, heads, loss, x = their_model(model)
    shared = list(encoder.parameters())
    params = shared + [p for head in heads for p in head.parameters()]
    ours = sum(leaf.size for leaf in jax.tree.leaves((model.shared, model.own)))
    assert sum(p.numel() for p in params) == ours
    optimizer = torch.optim.SGD(params, lr=1e-3)
    aggregator = getattr(torchjd.aggregation, rule)()
    weighting = getattr(torchjd.aggregation, f"{rule}Weighting")()

    def losses(z):
        return [loss(head(z), t) for t, head in enumerate(heads)]

    def step(gradients):
        optimizer.zero_grad()
        gradients()
        optimizer.step()

    def summed():
        torch.stack(losses(encoder(x))).sum().backward()

    def exact(chunk):
        z = encoder(x)
        mtl_backward(losses(z), features=z, parallel_chunk_size=chunk)
        jac_to_grad(shared, aggregator)

    def representation():
        z = encoder(x)
        leaf = z.detach().requires_grad_()
        features = leaf.view_as(leaf)
        mtl_backward(losses(features), features=features, shared_params=[leaf])
        jac_to_grad([leaf], aggregator)
        z.backward(leaf.grad)

    # Its hooks would slow the other steps down: an encoder of its own, of the same parameters.
    watched = copy.deepcopy(encoder)
    for own, module in zip(watched.modules(), encoder.modules(), strict=True):
        own._parameters = module._parameters
    engine = Engine(watched, batch_dim=None)

    def autogram():
        of_tasks = torch.stack(losses(watched(x)))
        of_tasks.backward(weighting(engine.compute_gramian(of_tasks)))

    ways = {
        SUM: summed,
        "mtl_backward": functools.partial(exact, None),
        "mtl_backward, one at a time": functools.partial(exact, 1),
        "autogram": autogram,
        THEIR_UB: representation,
    }
    return {name: functools.partial(step, gradients) for name, gradients in ways.items()}


def table(model: Model, rule: str, rounds: int) -> list[str]:
    """A row a step."""
    make, their_rule = RULES[rule]
    compiled: Calls = {
        name: functools.partial(jax.jit(step).lower(*args).compile(), *args)
        for name, (step, args) in programs(model, make()).items()
        if name in (SUM, *EXACT, *UB)
    }
    calls = {("ours", name): call for name, call in compiled.items()}
    calls |= {("TorchJD", name): call for name, call in theirs(model, their_rule).items()}
    times = in_turn(calls, rounds)
    found = {key: statistics.median(values) for key, values in times.items()}
    their_exact = min(
        (k for k in found if k[0] == "TorchJD" and k[1] not in (SUM, THEIR_UB)),
        key=lambda k: found[k],
    )
    rows = []
    for (whose, name), values in times.items():
        other = {SUM: SUM}.get(name, THEIR_UB if name in UB else their_exact[1])
        beside = ratio(values, times["TorchJD", other]) if whose == "ours" else None
        rows.append(
            f"| {model.name} | {their_rule} | {whose} | {name.removesuffix(' (jax.grad)')} "
            f"| {1e3 * found[whose, name]:.2f} | {ratio(values, times[whose, SUM]):.2f} "
            f"| {'' if beside is None else f'{beside:.2f}'} |"
        )
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["lenet", "wide"], choices=["lenet", "wide"])
    parser.add_argument("--rules", nargs="+", default=list(RULES), choices=list(RULES))
    parser.add_argument("--rounds", type=int, default=21, help="timed rounds (default 21)")
    given = parser.parse_args()
    if torchjd() is None:
        print("torch or torchjd is not installed: there is nothing to compare with.")
        return
    versions = [f"{name} {metadata.version(name)}" for name in ("jax", "torch", "torchjd")]
    print(f"{', '.join(versions)}, batch {BATCH}, load average {os.getloadavg()[0]:.1f}\n")
    print("| model | rule | whose | step | ms | ratio to the summed loss | ours / theirs |")
    print("| --- | --- | --- | --- | ---: | ---: | ---: |")
    for name in given.models:
        model = MODELS[name]()
        for rule in given.rules:
            print(*table(model, rule, given.rounds), sep="\n", flush=True)
    print(f"\nload average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
