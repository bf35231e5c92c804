"""Per-task gradients with a leading task axis → Gramian, and back to one update."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Gramian(NamedTuple):
    """M = G Gᵀ of rows scaled by one exact power of two, so that it never over- or underflows.

    The true Gramian is matrix · 4^exponent, the true norm of row t is
    √matrix[t, t] · 2^exponent. The largest entry of matrix is of order one.

    Attributes:
      matrix: (T, T), float32 or float64.
      exponent: () int32.
    """

    matrix: jax.Array
    exponent: jax.Array


def as_gramian(gramian: "Gramian | jax.typing.ArrayLike") -> Gramian:
    """A Gramian from a Gramian or a raw (T, T) array (then exponent 0 before rescaling)."""
    if isinstance(gramian, Gramian):
        return gramian
    return normalize(Gramian(jnp.asarray(gramian), jnp.zeros((), jnp.int32)))
