"""Everything that solves: the min-norm point, quadratic programs, bargains, the simplex."""

from mgda_jax.solvers.bargaining import Bargain as Bargain
from mgda_jax.solvers.bargaining import bargaining_solution as bargaining_solution
from mgda_jax.solvers.box_qp import QPSolution as QPSolution
from mgda_jax.solvers.box_qp import nonnegative_qp as nonnegative_qp
from mgda_jax.solvers.min_norm import MinNormSolution as MinNormSolution
from mgda_jax.solvers.min_norm import min_norm_point as min_norm_point
from mgda_jax.solvers.simplex import simplex_projection as simplex_projection
