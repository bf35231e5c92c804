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
from mgda_jax.weighting import fixed

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
    return (
        forward
        + tasks * (weights + inputs)
        + heads
        + 2 * tasks**2 * shared
        + 2 * tasks * shared
    )
