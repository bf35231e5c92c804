"""The rules: each a factory that returns a `Weighting` or a `RowRule`, in a file of its name."""

from collections.abc import Callable

# isort: off
# Rules of losses: weights from the losses alone, or from nothing.
from mgda_jax.weighting._uniform import uniform
from mgda_jax.weighting._fixed import fixed
from mgda_jax.weighting._rlw import rlw
from mgda_jax.weighting._random import random
from mgda_jax.weighting._dwa import dwa
from mgda_jax.weighting._famo import famo
from mgda_jax.weighting._gls import gls
from mgda_jax.weighting._pbi import pbi
from mgda_jax.weighting._scale_invariant import scale_invariant
from mgda_jax.weighting._stch import stch
from mgda_jax.weighting._tchebycheff import tchebycheff
from mgda_jax.weighting._uncertainty import uncertainty
from mgda_jax.weighting._go4align import go4align
from mgda_jax.weighting._imtl import imtl_l

# Rules of the Gramian: weights from inner products of the gradients.
from mgda_jax.weighting._min_norm import min_norm, MinNormReport
from mgda_jax.weighting._aligned_mtl import aligned_mtl
from mgda_jax.weighting._cagrad import cagrad
from mgda_jax.weighting._config import config
from mgda_jax.weighting._cr_mogm import cr_mogm
from mgda_jax.weighting._dual_proj import dual_proj
from mgda_jax.weighting._epo import epo
from mgda_jax.weighting._fair_grad import fair_grad
from mgda_jax.weighting._gradnorm import gradnorm
from mgda_jax.weighting._gradvac import gradvac
from mgda_jax.weighting._imtl import imtl, imtl_g
from mgda_jax.weighting._krum import krum
from mgda_jax.weighting._nash_mtl import nash_mtl
from mgda_jax.weighting._ntkmtl import ntkmtl
from mgda_jax.weighting._pareto_mtl import pareto_mtl
from mgda_jax.weighting._pcd import pcd
from mgda_jax.weighting._pcgrad import pcgrad
from mgda_jax.weighting._upgrad import upgrad
from mgda_jax.weighting.cross import cross_gramian
from mgda_jax.weighting._modo import modo
from mgda_jax.weighting._sdmgrad import sdmgrad

# Rules of the rows: directions from the gradients themselves.
from mgda_jax.weighting._coordinate_median import coordinate_median
from mgda_jax.weighting._db_mtl import db_mtl
from mgda_jax.weighting._excess_mtl import excess_mtl
from mgda_jax.weighting._graddrop import graddrop
from mgda_jax.weighting._moco import moco
from mgda_jax.weighting._sign_agreement import sign_agreement
from mgda_jax.weighting._trimmed_mean import trimmed_mean

# What the author of a rule needs.
from mgda_jax._gramian import as_gramian, norms
from mgda_jax.tasks import check_hyperparameter, check_int, task_vector
from mgda_jax.weighting.base import RowRule, Weighting
from mgda_jax.weighting.origin import is_factory, rule
from mgda_jax.weighting.unit_gramian import active_gramian
# isort: on


def rules() -> dict[str, Callable[..., Weighting | RowRule]]:
    """Every rule of this package: its factory by its name.

    Returns:
      Dict from name to factory, in alphabetical order.

    Examples:
      >>> sorted(rules())[:3]
      ['aligned_mtl', 'cagrad', 'config']
      >>> rules()["min_norm"](normalization="l2")
      min_norm(normalization='l2')
    """
    public = {name: globals()[name] for name in __all__}
    return {name: thing for name, thing in public.items() if is_factory(thing)}


__all__ = [
    "MinNormReport",
    "active_gramian",
    "aligned_mtl",
    "as_gramian",
    "cagrad",
    "check_hyperparameter",
    "check_int",
    "config",
    "coordinate_median",
    "cr_mogm",
    "cross_gramian",
    "db_mtl",
    "dual_proj",
    "dwa",
    "epo",
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
    "norms",
    "ntkmtl",
    "pareto_mtl",
    "pbi",
    "pcd",
    "pcgrad",
    "random",
    "rlw",
    "rule",
    "rules",
    "scale_invariant",
    "sdmgrad",
    "sign_agreement",
    "stch",
    "task_vector",
    "tchebycheff",
    "trimmed_mean",
    "uncertainty",
    "uniform",
    "upgrad",
]
