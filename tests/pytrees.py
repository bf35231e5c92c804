"""Pytrees of stacked gradients as the float64 matrices that references work on."""

import jax
import numpy as np


def flat_rows(rows) -> np.ndarray:
    """A pytree of (T, *shape) leaves as one float64 matrix (T, P)."""
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(rows)]
    return np.concatenate([leaf.reshape(leaf.shape[0], -1) for leaf in leaves], axis=1)
