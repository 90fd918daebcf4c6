"""Equations that only move a weight, on a weight that stays stored."""

from typing import Any

import jax

from jeff import base
from jeff.program import indexing, marks

__all__ = ["moved"]


def moved(eqn: Any, operands: list[Any]) -> list[Any] | None:
    """The outputs of an equation that only moves its first operand.

    Args:
      eqn: The equation, as traced for dense weights.
      operands: Its operands, stored weights among them.

    Returns:
      A value per output: stored; or, for entries that are taken and filled where they
      are out of bounds, dense. ``None`` if the equation does more, or if the weight
      cannot express the view: the caller decodes it.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jeff.quantize import QuantConfig, quantize
      >>> w = quantize(jnp.ones((8, 4)), QuantConfig(bits=4, group_size=8))
      >>> transpose, product = jax.make_jaxpr(lambda w: w.T @ w)(w.decode()).eqns
      >>> moved(transpose, [w])
      [QTensor(float32[4, 8], 4 bits, scales float32[4, 1])]
      >>> moved(product, [w, w]) is None
      True
    """
    name, params = eqn.primitive.name, eqn.params
    w = operands[0]
    if name == "optimization_barrier":
        return list(jax.lax.optimization_barrier(tuple(operands)))
    if not base.is_stored(w):
        return None
    shape = eqn.outvars[0].aval.shape
    out: Any = None
    if name in ("copy", "copy_p", marks.PRIMITIVE):
        out = w
    elif name == "stop_gradient":
        out = jax.lax.stop_gradient(w)
    elif name == "convert_element_type":
        out = w.astype(params["new_dtype"])
    elif name == "transpose":
        out = w.transpose(params["permutation"])
    elif name in ("reshape", "squeeze", "expand_dims"):
        order = params["dimensions"] if name == "reshape" else None
        read = w if order is None else w.transpose(order)
        out = None if read is None else read.reshape(shape)
    elif name == "broadcast_in_dim" and len(operands) == 1:
        out = w.reshape(shape) if w.size == eqn.outvars[0].aval.size else None
    elif name == "slice" and not any(s != 1 for s in params["strides"] or ()):
        out = w.slice(params["start_indices"], params["limit_indices"])
    elif name == "split":
        return _split(eqn, w)
    elif name in ("dynamic_slice", "gather"):
        out = indexing.take(eqn, w, operands[1:])
    return None if out is None else [out]


def _split(eqn, w) -> list[Any] | None:
    axis, start, parts = eqn.params["axis"], 0, []
    for size in eqn.params["sizes"]:
        starts, limits = [0] * w.ndim, list(w.shape)
        starts[axis], limits[axis] = start, start + size
        parts.append(w.slice(starts, limits))
        start += size
    return None if any(p is None for p in parts) else parts
