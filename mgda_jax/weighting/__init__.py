"""The rules: each a factory that returns a `Weighting` or a `RowRule`."""

from mgda_jax.weighting.aligned import aligned_mtl
from mgda_jax.weighting.cagrad import cagrad
from mgda_jax.weighting.cross import cross_gramian, modo, sdmgrad
from mgda_jax.weighting.equal import config, imtl, imtl_g
from mgda_jax.weighting.go4align import go4align
from mgda_jax.weighting.gradnorm import gradnorm, ntkmtl
from mgda_jax.weighting.loss_history import dwa, famo
from mgda_jax.weighting.loss_learned import imtl_l, uncertainty
from mgda_jax.weighting.loss_scale import gls, scale_invariant, stch
from mgda_jax.weighting.mgda import MinNormState, min_norm
from mgda_jax.weighting.nash import fair_grad, nash_mtl
from mgda_jax.weighting.priority import pcd
from mgda_jax.weighting.projection import gradvac, pcgrad
from mgda_jax.weighting.robust import krum
from mgda_jax.weighting.rows_excess import excess_mtl
from mgda_jax.weighting.rows_robust import coordinate_median, trimmed_mean
from mgda_jax.weighting.rows_sign import graddrop, sign_agreement
from mgda_jax.weighting.rows_tracking import db_mtl, moco
from mgda_jax.weighting.smoothing import cr_mogm
from mgda_jax.weighting.static import fixed, uniform
from mgda_jax.weighting.stochastic import random, rlw
from mgda_jax.weighting.upgrad import dual_proj, upgrad

__all__ = [
    "MinNormState",
    "aligned_mtl",
    "cagrad",
    "config",
    "coordinate_median",
    "cr_mogm",
    "cross_gramian",
    "db_mtl",
    "dual_proj",
    "dwa",
    "excess_mtl",
    "fair_grad",
    "famo",
    "fixed",
    "gls",
    "go4align",
    "graddrop",
    "gradnorm",
    "gradvac",
    "imtl",
    "imtl_g",
    "imtl_l",
    "krum",
    "min_norm",
    "moco",
    "modo",
    "nash_mtl",
    "ntkmtl",
    "pcd",
    "pcgrad",
    "random",
    "rlw",
    "scale_invariant",
    "sdmgrad",
    "sign_agreement",
    "stch",
    "trimmed_mean",
    "uncertainty",
    "uniform",
    "upgrad",
]
