"""The rules: each a factory that returns a `Weighting` or a `RowRule`."""

from mgda_jax.weighting.mgda import MinNormState, min_norm
from mgda_jax.weighting.static import fixed, uniform

__all__ = [
    "MinNormState",
    "fixed",
    "min_norm",
    "uniform",
]
