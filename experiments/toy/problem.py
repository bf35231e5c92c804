"""What a toy problem is: losses of a point, a box, and the Pareto set that is known."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from mgda_jax import pareto

Array = np.ndarray
_FEW, _MANY = 1681, 20_001  # points of a front


@dataclasses.dataclass(frozen=True)
class ToyProblem:
    """T losses of n numbers, all to be made small.

    Attributes:
      about: what it is and where it comes from, one line.
      losses: θ (n,) → (T,), in JAX.
      lower: (n,) the least value of each number.
      upper: (n,) the largest one.
      pareto_set: () → (P, n) points of the Pareto set, evenly spread.
      front: about how many → (F, T) points of its image by the front's own formula, in float64.
      starts: (S, n) where walks begin.
      steps: of Adam, enough for MGDA.
      learning_rate: of Adam.
      reached: the distance to the Pareto set that counts as there.
    """

    about: str
    losses: Callable[[jax.Array], jax.Array]
    lower: Array
    upper: Array
    pareto_set: Callable[[], Array]
    front: Callable[[int], Array]
    starts: Array
    steps: int = 4000
    learning_rate: float = 0.01
    reached: float = 0.05

    @property
    def tasks(self) -> tuple[str, ...]:
        """L1, L2, …"""
        shape = jax.eval_shape(self.losses, jnp.asarray(self.starts[0])).shape
        return tuple(f"L{t + 1}" for t in range(shape[0]))

    def reference(self) -> Array:
        """(T,) where hypervolume begins: a tenth of the front's extent beyond its worst."""
        front = self.front(_FEW)
        return front.max(axis=0) + 0.1 * np.ptp(front, axis=0)

    def volume(self) -> float:
        """Hypervolume of the front, of points so dense that two losses lack no thousandth."""
        dense = _MANY if len(self.tasks) == 2 else _FEW
        return pareto.wfg_hypervolume(self.front(dense), self.reference())

    def values(self, points: Array) -> Array:
        """Losses (..., T) of points (..., n)."""
        flat = jnp.asarray(points, jnp.float32).reshape(-1, points.shape[-1])
        return np.asarray(jax.jit(jax.vmap(self.losses))(flat)).reshape(*points.shape[:-1], -1)


def spread_starts(lower: Array, upper: Array, count: int = 6, seed: int = 0) -> Array:
    """(count, n) points in the inner nine tenths of a box, each number in a stratum of its own."""
    rng = np.random.default_rng(seed)
    strata = np.stack([rng.permutation(count) for _ in lower], axis=1)
    share = 0.05 + 0.9 * (strata + rng.random(strata.shape)) / count
    return (lower + share * (upper - lower)).astype(np.float32)


def box(lower: float, upper: float, size: int) -> tuple[Array, Array]:
    """The same bounds for each of some numbers."""
    return np.full(size, lower, np.float32), np.full(size, upper, np.float32)


def lattice(sides: int, count: int) -> Array:
    """(count^sides, sides) even points of the unit cube."""
    axes = np.meshgrid(*[np.linspace(0, 1, count)] * sides, indexing="ij")
    return np.stack(axes, axis=-1).reshape(-1, sides)


def only_best(points: Array) -> Array:
    """Those that no other of them dominates, one after the other: memory N T."""
    ordered = points[np.lexsort(points.T[::-1])]
    kept = np.empty_like(ordered)
    count = 0
    for point in ordered:
        if not (kept[:count] <= point).all(axis=1).any():
            kept[count] = point
            count += 1
    return kept[:count]
