"""Independent float64 answers: the min-norm point by non-negative least squares."""

import numpy as np
from scipy.optimize import nnls


def min_norm_weights(rows: np.ndarray) -> np.ndarray:
    """argmin over the simplex of ‖wᵀG‖, by NNLS on [Gᵀ; r·1ᵀ] b ≈ [0; r]."""
    rows = np.asarray(rows, np.float64)
    scale = np.linalg.norm(rows, axis=1).min()
    scale = scale if scale > 0 else 1.0
    system = np.vstack([rows.T, np.full((1, len(rows)), scale)])
    target = np.zeros(len(system))
    target[-1] = scale
    b, _ = nnls(system, target, maxiter=100 * len(rows))
    return b / b.sum()


def flat_rows(tree_of_rows) -> np.ndarray:
    """A pytree of (T, *shape) leaves as one float64 matrix (T, P)."""
    import jax

    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree_of_rows)]
    return np.concatenate([leaf.reshape(leaf.shape[0], -1) for leaf in leaves], axis=1)
