"""The state of rules whose weights never change."""

from typing import NamedTuple

import jax


class StaticState(NamedTuple):
    """State of `uniform` and `fixed`.

    Attributes:
      weights: (T,) the weights of all tasks, before inactive ones are set to zero.
    """

    weights: jax.Array
