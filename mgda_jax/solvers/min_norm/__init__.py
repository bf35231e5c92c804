"""The shortest vector in the convex hull of T gradients, from their Gramian."""

from mgda_jax.solvers.min_norm.point import METHODS as METHODS
from mgda_jax.solvers.min_norm.point import Method as Method
from mgda_jax.solvers.min_norm.point import min_norm_point as min_norm_point
from mgda_jax.solvers.min_norm.solution import MinNormSolution as MinNormSolution
