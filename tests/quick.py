"""Compilation without optimisation, for programs whose numbers alone are asked for.

A program of a rule takes seconds to compile, this way a fraction of them. What a test says
about rounding, NaN in large batches or another instruction set it must say of optimised code, as
users run it; references, wiring and shapes do not need that.
"""

import functools

import jax

OPTIONS = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}

quick_jit = functools.partial(jax.jit, compiler_options=OPTIONS)
