"""A parameter in one product with what is known: what its rows are formed of."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mgda_jax._equations import value
from mgda_jax.products import may_be_sharded, safe_exponent


def is_product(equation: Any, inputs: list[Any]) -> bool:
    """Whether it is a product of a known matrix with a linear one, summed over one dimension."""
    if equation.primitive.name != "dot_general" or len(inputs) != 1 or not inputs[0].aval.size:
        return False
    (contracted, _), (batch, _) = equation.params["dimension_numbers"]
    return len(contracted) == 1 and not batch


class Product(NamedTuple):
    """The product of a known factor with a parameter, summed over one dimension of both.

    Attributes:
      of: `of(parameter, factor)`, of any length of that dimension.
      factor: the known one.
      kind: the parameter's shape and dtype.
      dims: the dimension that is summed over, of the parameter and of the factor.
    """

    of: Callable[[jax.Array, jax.Array], jax.Array]
    factor: jax.Array
    kind: jax.ShapeDtypeStruct
    dims: tuple[int, int]


def product_of(equation: Any, param: Any, known: dict, seeds: jax.Array, whole: bool) -> Product:
    """That of an equation of which `is_product` holds.

    Args:
      equation: the product.
      param: its variable that is a parameter.
      known: the values of the others.
      seeds: cotangents of the product, (T, *shape).
      whole: whether rows are not summed over devices or tasks before their products are formed,
        so that a shorter factor may serve.
    """
    ((left,), (right,)), _ = equation.params["dimension_numbers"]
    is_left = equation.invars[0] is param
    own, other = (left, right) if is_left else (right, left)
    factor = value(equation.invars[1 if is_left else 0], known)

    def of(param, factor):
        pair = (param, factor) if is_left else (factor, param)
        return equation.primitive.bind(*pair, **equation.params)

    if whole:
        factor = _shortened(factor, other, seeds, param.aval.size)
    shape = list(param.aval.shape)
    shape[own] = factor.shape[other]
    return Product(of, factor, jax.ShapeDtypeStruct(shape, param.aval.dtype), (own, other))


def _shortened(factor: jax.Array, axis: int, seeds: jax.Array, size: int) -> jax.Array:
    """The examples' factor F with as many columns as rows, where that is less work.

    The rows of the parameter are g_t = Fᵀ D_t with the cotangents D_t. With Fᵀ = Q R and
    orthonormal Q, ⟨g_s, g_t⟩ = ⟨R D_s, R D_t⟩: Rᵀ serves for F. (F Fᵀ would serve too, at the
    price of half of the digits where the sum over the examples cancels.)
    """
    length = factor.shape[axis]
    examples = factor.size // max(length, 1)
    saved = len(seeds) * (size // length) * (length - examples)
    # A factorisation's operations are slower than a product's; on accelerators far slower.
    worth = 0 < 8 * examples * length < saved and jax.default_backend() == "cpu"
    if not worth or may_be_sharded(factor) or factor.dtype not in (jnp.float32, jnp.float64):
        return factor
    columns = jnp.moveaxis(factor, axis, 0)
    # Of order one, since products inside a factorisation may leave the range.
    exponent = safe_exponent(jnp.max(jnp.abs(factor)))
    down, up = (jnp.ldexp(jnp.ones((), factor.dtype), sign * exponent) for sign in (-1, 1))
    triangle = jnp.linalg.qr(columns.reshape(length, examples) * down, mode="r") * up
    return jnp.moveaxis(triangle.reshape(examples, *columns.shape[1:]), 0, axis)


def is_outer(product: Product) -> bool:
    """Whether the row is one outer product, of the factor and the cotangent."""
    is_real = jnp.issubdtype(product.kind.dtype, jnp.floating)
    return is_real and product.factor.size == product.kind.shape[product.dims[0]]
