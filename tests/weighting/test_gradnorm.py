"""GradNorm on the gradients of one layer, as its docstring says."""

import jax.numpy as jnp
import numpy as np

from mgda_jax import aggregate, gramian, weighting


def test_gradnorm_takes_the_norms_of_the_layer_whose_gramian_it_is_given():
    rows = {
        "first": jnp.array([[1.0, 2.0], [3.0, 1.0]]),
        "last": jnp.array([[4.0, 0.0], [0.0, 1.0]]),
    }
    params = {"first": jnp.zeros(2), "last": jnp.zeros(2)}
    tx = aggregate(weighting.gradnorm(), 2)
    given = {"losses": jnp.array([1.0, 1.0])}
    updates, state = tx.update(
        rows, tx.init(params), params, gramian=gramian({"last": rows["last"]}), **given
    )
    alone = aggregate(weighting.gradnorm(), 2)
    last = {"last": rows["last"]}
    _, expected = alone.update(last, alone.init({"last": params["last"]}), **given)
    np.testing.assert_array_equal(
        state.weighting.weights.parameters, expected.weighting.weights.parameters
    )
    # All layers are updated.
    np.testing.assert_array_equal(updates["first"], rows["first"].sum(0))
