"""The rules: each a factory that returns a `Weighting` or a `RowRule`."""

from mgda_jax.weighting.cagrad import cagrad
from mgda_jax.weighting.go4align import go4align
from mgda_jax.weighting.loss_history import dwa, famo
from mgda_jax.weighting.loss_learned import imtl_l, uncertainty
from mgda_jax.weighting.loss_scale import gls, scale_invariant, stch
from mgda_jax.weighting.mgda import MinNormState, min_norm
from mgda_jax.weighting.nash import fair_grad, nash_mtl
from mgda_jax.weighting.projection import gradvac, pcgrad
from mgda_jax.weighting.static import fixed, uniform
from mgda_jax.weighting.stochastic import random, rlw
from mgda_jax.weighting.upgrad import dual_proj, upgrad

__all__ = [
    "MinNormState",
    "cagrad",
    "dual_proj",
    "dwa",
    "fair_grad",
    "famo",
    "fixed",
    "gls",
    "go4align",
    "gradvac",
    "imtl_l",
    "min_norm",
    "nash_mtl",
    "pcgrad",
    "random",
    "rlw",
    "scale_invariant",
    "stch",
    "uncertainty",
    "uniform",
    "upgrad",
]
