"""All toy problems by name."""

from experiments.toy import dtlz, valleys, vlmop, zdt
from experiments.toy.problem import ToyProblem

PROBLEMS: dict[str, ToyProblem] = {
    **valleys.PROBLEMS,
    **vlmop.PROBLEMS,
    **zdt.PROBLEMS,
    **dtlz.PROBLEMS,
}
