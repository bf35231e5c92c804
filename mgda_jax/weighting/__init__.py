"""The rules: each a factory that returns a `Weighting` or a `RowRule`."""

from mgda_jax.weighting.go4align import go4align
from mgda_jax.weighting.loss_history import dwa, famo
from mgda_jax.weighting.loss_learned import imtl_l, uncertainty
from mgda_jax.weighting.loss_scale import gls, scale_invariant, stch
from mgda_jax.weighting.mgda import MinNormState, min_norm
from mgda_jax.weighting.static import fixed, uniform
from mgda_jax.weighting.stochastic import random, rlw

__all__ = [
    "MinNormState",
    "dwa",
    "famo",
    "fixed",
    "gls",
    "go4align",
    "imtl_l",
    "min_norm",
    "random",
    "rlw",
    "scale_invariant",
    "stch",
    "uncertainty",
    "uniform",
]
