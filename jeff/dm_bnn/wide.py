"""Noise of programs in 16 bits: made in float32, as its squares would vanish there.

A standard deviation of 1e-4 is a float16; its square is not, and squares of bfloat16
have two digits. So what is random is computed from wider operands and narrowed once,
with what it is added to.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jeff import base
from jeff.program.presentation import Presentation

__all__ = ["added", "in_operands_dtype", "widened"]


def widened(array: jax.Array) -> jax.Array:
    """The array in float32, or as it is if it has more than 16 bits.

    Args:
      array: Any shape.

    Returns:
      An array of the same shape.

    Examples:
      >>> widened(jnp.ones(2, jnp.bfloat16)).dtype, widened(jnp.ones(2)).dtype
      (dtype('float32'), dtype('float32'))
    """
    return array if array.dtype.itemsize > 2 else array.astype(jnp.float32)


def added(center: jax.Array, change: jax.Array) -> jax.Array:
    """``center + change``, rounded once to the dtype of `center`.

    Args:
      center: Any shape, floating.
      change: Of that shape, floating, as wide or wider.

    Returns:
      An array like `center`.

    Examples:
      >>> center, change = jnp.ones(1, jnp.float16), jnp.full(1, 0.0004)
      >>> print(added(center, change), added(center, change).dtype)
      [1.] float16
    """
    wide: Any = max(center.dtype, change.dtype, key=lambda dtype: dtype.itemsize)
    return (center.astype(wide) + change.astype(wide)).astype(center.dtype)


def in_operands_dtype(op: base.Operation, view: Presentation) -> base.Operation:
    """A site's operation, on wider operands with a result as wide.

    The operation itself gives the dtype of the site whatever it is given, or refuses.

    Args:
      op: The operation of a product or convolution.
      view: How the site presents itself.

    Returns:
      ``run(x, w)``: on operands of the site's dtypes `op`, bit for bit; on others the
      same product in their dtype, at the highest precision.

    Examples:
      >>> import operator
      >>> from jeff.program import operation
      >>> x, w = jnp.full((1, 2), 1e-4, jnp.float16), jnp.ones((2, 1), jnp.float16)
      >>> eqn = jax.make_jaxpr(operator.matmul)(x, w).eqns[0]
      >>> run = in_operands_dtype(operator.matmul, operation.present(eqn, 1, "dot"))
      >>> run(x, w).dtype, run(widened(x), widened(w)).dtype
      (dtype('float16'), dtype('float32'))
    """
    # Of float32, and not of what a device may make of it.
    free = {"preferred_element_type": None, "precision": lax.Precision.HIGHEST}
    eqn = view.eqn.replace(params={**view.eqn.params, **free})
    wide = dataclasses.replace(view, eqn=eqn)
    operands = [v.aval.dtype for v in eqn.invars]
    same = operands[view.activation], operands[view.weight]

    def run(x, w):
        if (x.dtype, w.dtype) == same:
            return op(x, w)
        return wide.run([None] * len(operands), x, w)

    return run
