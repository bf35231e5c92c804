"""Sets of trade-offs: dominance, and how near, how wide and how even. Lower losses are better."""

from mgda_jax.pareto._dominance import dominates as dominates
from mgda_jax.pareto._dominance import fronts as fronts
from mgda_jax.pareto._dominance import non_dominated as non_dominated
from mgda_jax.pareto._evenness import spacing as spacing
from mgda_jax.pareto._evenness import spread as spread
from mgda_jax.pareto._hypervolume import hypervolume as hypervolume
from mgda_jax.pareto._hypervolume_gradient import hypervolume_gradient as hypervolume_gradient
from mgda_jax.pareto._inverted_distance import igd as igd
from mgda_jax.pareto._inverted_distance import igd_plus as igd_plus
from mgda_jax.pareto._ranking import delta_m as delta_m
from mgda_jax.pareto._ranking import mean_rank as mean_rank
from mgda_jax.pareto._stationarity import stationarity as stationarity
from mgda_jax.pareto._wfg import wfg_hypervolume as wfg_hypervolume

__all__ = [
    "delta_m",
    "dominates",
    "fronts",
    "hypervolume",
    "hypervolume_gradient",
    "igd",
    "igd_plus",
    "mean_rank",
    "non_dominated",
    "spacing",
    "spread",
    "stationarity",
    "wfg_hypervolume",
]
