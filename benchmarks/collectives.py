"""Bytes that a step moves between eight devices, counted from the compiled program.

    python -m benchmarks.collectives [--tasks {2,3,4}] [--check]

A dense encoder and T linear heads on eight simulated devices, in four layouts: the batch divided
("data"), the same under shard_map with the axis named, parameters and batch divided over one axis
("fully sharded"), and parameters divided over an axis of their own ("tensor"). A row is a way of
getting the gradients; beside what was counted stands what the model of docs/cost.md says, and the
largest array that was gathered, and how far the gradients are from those of one device. --check
ends with exit code 1 where counts differ, gradients differ beyond rounding, or a gather is as large
as T gradients of a layer.
"""

import argparse
import re
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import mgda_jax
from mgda_jax.weighting import min_norm

PyTree = Any
DEVICES = 8
BATCH, INPUTS, HIDDEN, FEATURES = 64, 96, 128, 64
TOLERANCE = 64  # eps of the largest entry: sums in another order, and a solve
_KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_LINE = re.compile(rf"= (.*?) ({'|'.join(_KINDS)})\(")
_SHAPE = re.compile(r"\w+?(\d+)\[([\d,]*)\]")


def collectives(text: str) -> dict[str, list[int]]:
    """Sizes in bytes of every collective's results, by kind, of a program's HLO."""
    found: dict[str, list[int]] = {}
    for shapes, kind in _LINE.findall(text):
        for bits, dims in _SHAPE.findall(shapes):
            count = 1
            for n in filter(None, dims.split(",")):
                count *= int(n)
            found.setdefault(kind, []).append(count * int(bits) // 8)
    return found


class Parameters(NamedTuple):
    """Everything that is trained: two dense layers, and T rows of a linear head."""

    first: Any
    second: Any
    heads: Any


SHARED = Parameters(True, True, False)


def encode(shared: tuple[jax.Array, jax.Array], x: jax.Array) -> jax.Array:
    """(N, inputs) → (N, features)."""
    return jnp.tanh(jnp.tanh(x @ shared[0]) @ shared[1])


def head_losses(heads: jax.Array, zs: jax.Array, y: jax.Array) -> jax.Array:
    """The T losses of zs (T, N, features) and targets (T, N)."""
    return jnp.mean((jnp.einsum("tnf,tf->tn", zs, heads) - y) ** 2, axis=1)


def entrances(tasks: int, axis: str | None) -> dict[str, Callable]:
    """Each way to the gradients, as `f(parameters, x, y) -> gradients`."""

    def on_the_sum(copies_of: Callable, parameters: Parameters, x: jax.Array, y: jax.Array):
        def total(p: Parameters) -> jax.Array:
            return jnp.sum(head_losses(p.heads, copies_of(p[:2], x), y))

        grads = jax.grad(total)(parameters)
        return grads if axis is None else jax.lax.pmean(grads, axis)

    def plain(shared, x):
        z = encode(shared, x)
        return jnp.broadcast_to(z, (tasks, *z.shape))

    def branch(shared, x):
        return mgda_jax.branch(encode(shared, x), tasks, axis_name=axis, stacked=True)

    def branched(shared, x):
        copies = mgda_jax.branched(encode, tasks, axis_name=axis)(shared, x)
        return jnp.stack(list(copies))

    def by_oracle(mode: Any, parameters: Parameters, x: jax.Array, y: jax.Array):
        oracle = mgda_jax.multitask_value_and_grad(
            encode,
            lambda own, zs, batch: head_losses(own, zs, y),
            min_norm(),
            tasks,
            mode=mode,
            axis_name=axis,
        )
        _, (shared, heads), _ = oracle(parameters[:2], parameters[2], x, oracle.init())
        return Parameters(shared[0], shared[1], heads)

    def by_aggregate(parameters: Parameters, x: jax.Array, y: jax.Array):
        def losses(p: Parameters) -> jax.Array:
            return head_losses(p.heads, plain(p[:2], x), y)

        tx = mgda_jax.aggregate(min_norm(), tasks, SHARED)
        gradients = mgda_jax.task_gradients(losses, SHARED, axis_name=axis)(parameters)[1]
        return tx.update(gradients, tx.init(parameters), parameters)[0]

    def bound(function: Callable, first: Any) -> Callable:
        return lambda *arguments: function(first, *arguments)

    return {
        "summed loss": bound(on_the_sum, plain),
        "branch": bound(on_the_sum, branch),
        "branched": bound(on_the_sum, branched),
        "oracle, representation": bound(by_oracle, "representation"),
        "oracle, exact": bound(by_oracle, "parameters"),
        "task_gradients, aggregate": by_aggregate,
    }


class Found(NamedTuple):
    """Of one way in one layout.

    Attributes:
      moved: bytes of each kind of collective.
      error: largest difference from one device's gradients, in eps of the largest entry.
    """

    moved: dict[str, list[int]]
    error: float


def measure(tasks: int) -> dict[tuple[str, str], Found]:
    """Every way in every layout."""
    mesh = jax.make_mesh((DEVICES,), ("d",), axis_types=(AxisType.Auto,))

    def put(array: jax.Array, *spec: Any) -> jax.Array:
        return jax.device_put(array, NamedSharding(mesh, P(*spec)))

    keys = jax.random.split(jax.random.key(0), 5)
    first = jax.random.normal(keys[0], (INPUTS, HIDDEN)) / INPUTS**0.5
    second = jax.random.normal(keys[1], (HIDDEN, FEATURES)) / HIDDEN**0.5
    heads = jax.random.normal(keys[2], (tasks, FEATURES)) / FEATURES**0.5
    x = jax.random.normal(keys[3], (BATCH, INPUTS))
    y = jax.random.normal(keys[4], (tasks, BATCH))
    replicated = Parameters(put(first), put(second), put(heads))
    divided = Parameters(put(first, "d"), put(second, "d"), put(heads, None, "d"))
    columns_then_rows = Parameters(put(first, None, "d"), put(second, "d"), put(heads))
    batch = put(x, "d"), put(y, None, "d")
    layouts = {
        "data": (replicated, *batch),
        "fully sharded": (divided, *batch),
        "tensor": (columns_then_rows, put(x), put(y)),
    }
    ways, named = entrances(tasks, None), entrances(tasks, "d")
    alone = {way: jax.jit(f)(Parameters(first, second, heads), x, y) for way, f in ways.items()}
    out = {}

    def look(layout: str, way: str, function: Callable, arguments: Any, **where: Any) -> None:
        compiled = jax.jit(function, **where).lower(*arguments).compile()
        errors = [
            jnp.max(jnp.abs(jax.device_get(got) - jax.device_get(expected)))
            / jnp.max(jnp.abs(jax.device_get(expected)))
            for got, expected in zip(compiled(*arguments), alone[way], strict=True)
        ]
        error = float(max(errors)) / float(jnp.finfo(x.dtype).eps)
        out[layout, way] = Found(collectives(compiled.as_text() or ""), error)

    for layout, arguments in layouts.items():
        where = jax.tree.map(lambda leaf: leaf.sharding, arguments[0])
        for way, function in ways.items():
            look(layout, way, function, arguments, out_shardings=where)
    specs = (P(), P("d"), P(None, "d"))
    for way, function in named.items():
        mapped = jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=P(), check_vma=False)
        look("shard_map", way, mapped, (replicated, *batch))
    return out


def predicted(layout: str, way: str, tasks: int) -> int | None:
    """Bytes moved beyond the step on the sum, by docs/cost.md; None where it makes no claim."""
    shared = 4 * (INPUTS * HIDDEN + HIDDEN * FEATURES)
    gramian = 4 * tasks**2 + 4  # and its scale
    if way == "summed loss":
        return 0
    exact = way in ("branched", "oracle, exact", "task_gradients, aggregate")
    if layout == "tensor":  # z is whole on every device, a gradient is not
        return 2 * gramian if exact else 0
    if not exact:
        return gramian
    if (layout, way) == ("shard_map", "branched"):  # what comes out is each device's, and reduced
        return tasks * shared
    # Divided parameters: which of its products the partitioner divides how is its own choice.
    return None if layout == "fully sharded" else (tasks - 1) * shared


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    # Beyond four tasks a CPU pulls them back in a loop, whose body would be counted once.
    parser.add_argument("--tasks", type=int, default=3, choices=(2, 3, 4), help="T (default 3)")
    parser.add_argument("--check", action="store_true", help="exit code 1 where the model is wrong")
    arguments = parser.parse_args()
    tasks = arguments.tasks
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", DEVICES)
    found = measure(tasks)
    print(f"jax {jax.__version__}, {DEVICES} simulated devices, T = {tasks}\n")
    print(
        "| layout | gradients by | bytes moved | beyond the sum | the model | largest gather "
        "| error, eps |"
    )
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    wrong = False
    for (layout, way), (by_kind, error) in found.items():
        moved = sum(map(sum, by_kind.values()))
        beyond = moved - sum(map(sum, found[layout, "summed loss"].moved.values()))
        model = predicted(layout, way, tasks)
        gathered = max(by_kind.get("all-gather", [0]))
        wrong |= model is not None and model != beyond
        # T gradients of the smaller layer: no gather may hold as much.
        wrong |= gathered >= tasks * 4 * HIDDEN * FEATURES
        wrong |= error > TOLERANCE
        said = "–" if model is None else model
        print(f"| {layout} | {way} | {moved} | {beyond} | {said} | {gathered} | {error:.1f} |")
    if arguments.check and wrong:
        sys.exit("a count or the gradients differ, or a gather holds T gradients")


if __name__ == "__main__":
    main()
