"""Affine quantizers: real numbers to unsigned codes of a few bits and back.

With ``Q = 2^bits - 1`` and, per group of weights, a `scale` and a `zero` point::

    code = clip(round(w / scale + zero), 0, Q)        decoded = (code - zero) * scale

Asymmetric groups take ``scale = max(max - min, 1e-5) / Q`` and a zero point by mode:

- ``"int"``: ``zero = clip(-round(min / scale), 0, Q)``, an integer that is added after
  rounding. A group of weights of one sign is clipped (`one_sided_groups`).
- ``"int_incl_zero"``: the same after extending the range to include 0.
- ``"float"``: ``zero = -min / scale``, any real number. A group far from 0 gets a scale
  of at least ``|min| / 2^p``, p the precision of the scale's dtype in bits, so that
  the zero point is exact to half a code.

Symmetric groups take ``scale = max(|w|, 1e-5) / (2^(bits-1) - 1)`` and store
``clip(round(w / scale), -2^(bits-1), 2^(bits-1) - 1) + 2^(bits-1)``: their zero point
is the constant ``2^(bits-1)``.

Everything is computed in float32, rounding half to even, and bit-equal to the PyTorch
programs of MBQ and AWQ, eagerly and under jit, vmap and scan. That takes care: XLA
turns a division by anything *broadcast* into a multiplication by its reciprocal, which
is one unit in the last place off in a quarter of all cases (`exact_divide`).

References:
  MBQ, arXiv 2412.19509, equations 1 and 2 (there the zero point is the minimum of the
  group; here it is counted in codes); AWQ, arXiv 2306.00978, section 3.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jeff import base
from jeff.quantize import groups
from jeff.quantize.config import QuantConfig

__all__ = [
    "SMALLEST_RANGE",
    "affine_parameters",
    "check_weight",
    "decode",
    "encode",
    "exact_divide",
    "one_sided_groups",
]

SMALLEST_RANGE = 1e-5
"""Range given to a constant group (MBQ and AWQ), which keeps its scale above 0."""


def affine_parameters(
    w: jax.Array,
    config: QuantConfig,
    *,
    contract_axes: Sequence[int] = (-2,),
    stack_axes: Sequence[int] = (),
) -> tuple[jax.Array, jax.Array | None]:
    """Scale and zero point of every group of a weight.

    Args:
      w: Weight of any shape, floating.
      config: The quantizer.
      contract_axes: Axes that a product sums over, in row-major order of the
        flattened axis along which groups run.
      stack_axes: Axes of which each entry is a weight of its own (layers, experts);
        they matter only if `config` is per tensor.

    Returns:
      ``(scale, zero)`` of shape `groups.group_shape`: the rank and axis order of `w`,
      with every axis shrunk to its number of groups. `scale` is of
      ``config.scale_dtype``; `zero` is ``None`` if symmetric, of the dtype of `scale`
      for ``"float"``, else uint8.

    Raises:
      TypeError: If `config` is no `QuantConfig`.
      ValueError: If the group size does not divide the contraction axes.

    Examples:
      >>> w = jnp.array([[-1.0], [0.0], [1.0], [2.0]])
      >>> scale, zero = affine_parameters(w, QuantConfig(bits=2))
      >>> print(scale, zero)
      [[1.]] [[1]]
    """
    shape = groups.group_shape(
        w.shape, config, contract_axes=contract_axes, stack_axes=stack_axes
    )
    low, high = groups.extremes(w, shape)
    dtype = jnp.dtype(config.scale_dtype)
    if config.symmetric:
        largest = jnp.maximum(jnp.maximum(-low, high), SMALLEST_RANGE)
        scale = exact_divide(largest, 2.0 ** (config.bits - 1) - 1.0)
        return scale.astype(dtype), None
    if config.zero_point == "int_incl_zero":
        low, high = jnp.minimum(low, 0.0), jnp.maximum(high, 0.0)
    top = 2.0**config.bits - 1.0
    scale = exact_divide(jnp.maximum(high - low, SMALLEST_RANGE), top)
    if config.zero_point == "float":
        # Never so small that the zero point is not exact to half a code.
        scale = jnp.maximum(scale, jnp.abs(low) * 2.0 ** -(jnp.finfo(dtype).nmant + 1))
    scale = scale.astype(dtype)
    steps = exact_divide(low, scale.astype(jnp.float32))
    if config.zero_point == "float":
        return scale, (-steps).astype(dtype)
    return scale, jnp.clip(-jnp.round(steps), 0.0, top).astype(jnp.uint8)


def encode(
    w: jax.Array, scale: jax.Array, zero: jax.Array | None, *, bits: int
) -> jax.Array:
    """Codes of a weight.

    Args:
      w: Weight, floating.
      scale: Of the rank of `w`; each size divides that of `w`.
      zero: Zero points of the shape of `scale`; integers are added after rounding,
        floating ones before; ``None`` for symmetric codes.
      bits: Width of a code.

    Returns:
      Codes in ``[0, 2^bits - 1]``, uint8, of the shape of `w`.

    Examples:
      >>> w, one = jnp.array([-1.0, 0.0, 0.6]), jnp.ones(1)
      >>> print(encode(w, one, None, bits=2))
      [1 2 3]
    """
    steps = exact_divide(w.astype(jnp.float32), groups.spread(scale, w.shape))
    if zero is None:
        steps = jnp.round(steps) + 2.0 ** (bits - 1)
    elif jnp.issubdtype(zero.dtype, jnp.floating):
        steps = jnp.round(steps + groups.spread(zero, w.shape))
    else:
        steps = jnp.round(steps) + groups.spread(zero, w.shape)
    return jnp.clip(steps, 0.0, 2.0**bits - 1.0).astype(jnp.uint8)


def decode(
    codes: jax.Array,
    scale: jax.Array,
    zero: jax.Array | None,
    *,
    bits: int,
    dtype: Any = jnp.float32,
) -> jax.Array:
    """``(codes - zero) * scale``, computed in float32.

    Args:
      codes: Unsigned codes.
      scale: Of the rank of `codes`; each size divides that of `codes`.
      zero: Zero points of the shape of `scale`, or ``None`` for symmetric codes.
      bits: Width of a code.
      dtype: Dtype of the result.

    Returns:
      The weight, of the shape of `codes`.

    Examples:
      >>> print(decode(jnp.arange(4), 0.5 * jnp.ones(1), None, bits=2))
      [-1.  -0.5  0.   0.5]
    """
    offset = 2.0 ** (bits - 1) if zero is None else groups.spread(zero, codes.shape)
    steps = codes.astype(jnp.float32) - offset
    return (steps * groups.spread(scale, codes.shape)).astype(dtype)


def one_sided_groups(
    w: jax.Array,
    config: QuantConfig,
    *,
    contract_axes: Sequence[int] = (-2,),
    stack_axes: Sequence[int] = (),
) -> jax.Array:
    """Groups whose weights are all positive or all negative.

    Their range does not include 0, so the clamped zero point of mode ``"int"`` cannot
    reach them: a 3-bit group of 1.0 to 1.035 decodes to 0.035 at most. Where this is
    true, take ``zero_point="int_incl_zero"`` or ``"float"``.

    Args:
      w: Weight of any shape.
      config: The quantizer whose groups are meant.
      contract_axes: Axes that a product sums over.
      stack_axes: Axes of which each entry is a weight of its own.

    Returns:
      bool, of shape `groups.group_shape`; all false unless `config` is of mode
      ``"int"``.

    Examples:
      >>> w = jnp.array([[1.0, -1.0], [1.2, 1.0]])
      >>> print(one_sided_groups(w, QuantConfig(bits=3)))
      [[ True False]]
    """
    shape = groups.group_shape(
        w.shape, config, contract_axes=contract_axes, stack_axes=stack_axes
    )
    low, high = groups.extremes(w, shape)
    concerned = not config.symmetric and config.zero_point == "int"
    return ((low > 0.0) | (high < 0.0)) & concerned


def check_weight(w: Any, name: str = "w") -> jax.Array:
    """`w` as a JAX array, if it is a dense array of floating numbers.

    Args:
      w: What was given to be rounded.
      name: What to call it in an error.

    Returns:
      The array.

    Raises:
      TypeError: If it is stored already, no array, or not floating.

    Examples:
      >>> check_weight(jnp.arange(3))
      Traceback (most recent call last):
        ...
      TypeError: w must be floating, got int32
    """
    if base.is_stored(w):
        raise TypeError(f"{name} must be a dense array, got {w!r}; decode it first")
    try:
        w = jnp.asarray(w)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be an array, got {type(w).__name__}") from None
    if not jnp.issubdtype(w.dtype, jnp.floating):
        raise TypeError(f"{name} must be floating, got {w.dtype}")
    return w


def exact_divide(x: jax.Array, divisor: "jax.Array | float") -> jax.Array:
    """``x / divisor``, correctly rounded although `divisor` is broadcast.

    XLA rewrites a division by a broadcast value as a multiplication by its reciprocal.
    The barrier hides that the divisor is broadcast; the `where` gives it any axis that
    `vmap` maps in `x` alone, which a broadcast to ``x.shape`` does not see.

    Args:
      x: float32 of any shape.
      divisor: Broadcasts to the shape of `x`.

    Returns:
      float32 of the shape of `x`.

    Examples:
      >>> print(exact_divide(jnp.array([7.0, 0.9]), 7.0) * 7)
      [7.  0.9]
    """
    divisor = jnp.broadcast_to(jnp.asarray(divisor, jnp.float32), x.shape)
    divisor = jnp.where(x == x, divisor, divisor)
    return x / lax.optimization_barrier(divisor)
