"""Quantize and decode in one step, with a straight-through gradient.

Rounding has zero slope almost everywhere; the straight-through estimator takes its
derivative to be 1 instead, so that what comes before the quantizer can be trained.

References:
  Bengio et al., arXiv 1308.3432. MBQ, arXiv 2412.19509, section 4.1 (activations).
"""

import functools
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp

from jeff.quantize import affine, checks
from jeff.quantize.config import QuantConfig, check_config

__all__ = ["activation_codes", "fake_quant", "fake_quant_activations"]


def fake_quant(
    w: jax.Array,
    config: QuantConfig,
    *,
    contract_axes: Sequence[int] = (-2,),
    stack_axes: Sequence[int] = (),
) -> jax.Array:
    """The weight after quantizing and decoding; its gradient passes straight through.

    Args:
      w: Weight of any shape, floating.
      config: The quantizer.
      contract_axes: Axes that a product sums over.
      stack_axes: Axes of which each entry is a weight of its own.

    Returns:
      Of the shape and dtype of `w`, equal to ``quantize(w, ...).decode()``.

    Raises:
      TypeError: If `w` is not floating or `config` is no `QuantConfig`.
      ValueError: If the group size does not divide the contraction axes.

    Examples:
      >>> w = jnp.array([[-1.0], [0.1], [1.2], [2.0]])
      >>> print(fake_quant(w, QuantConfig(bits=2))[:, 0])
      [-1.  0.  1.  2.]
      >>> print(jax.grad(lambda w: fake_quant(w, QuantConfig(bits=2)).sum())(w)[:, 0])
      [1. 1. 1. 1.]
    """
    check_config(config)
    w = affine.check_weight(w)

    def quantizer(w):
        scale, zero = affine.affine_parameters(
            w, config, contract_axes=contract_axes, stack_axes=stack_axes
        )
        codes = affine.encode(w, scale, zero, bits=config.bits)
        return affine.decode(codes, scale, zero, bits=config.bits, dtype=w.dtype)

    return _straight_through(quantizer, w)


def fake_quant_activations(
    x: jax.Array, *, bits: int, per: Literal["token", "tensor"] = "token"
) -> jax.Array:
    """Activations after dynamic symmetric quantizing; gradient straight through.

    Args:
      x: ``[..., features]``, floating.
      bits: Width of a code, 2 to 16.
      per: One scale per ``"token"`` (over the last axis), or one for the ``"tensor"``.

    Returns:
      Of the shape and dtype of `x`.

    Raises:
      TypeError: If `x` is not floating or `bits` is no integer.
      ValueError: If `bits` or `per` is none of these.

    Examples:
      >>> print(fake_quant_activations(jnp.array([[7.0, 3.4], [0.7, -0.31]]), bits=4))
      [[ 7.   3. ]
       [ 0.7 -0.3]]
    """
    if not 2 <= checks.integer(bits, "bits") <= 16:
        raise ValueError(f"bits of activations must be 2 to 16, got {bits}")
    checks.word(per, "per", ("token", "tensor"))
    x = affine.check_weight(x, "x")

    def quantizer(x):
        codes, scale = activation_codes(x, bits=bits, per=per)
        return (codes * scale).astype(x.dtype)

    return _straight_through(quantizer, x)


def activation_codes(
    x: jax.Array, *, bits: int, per: Literal["token", "tensor"] = "token"
) -> tuple[jax.Array, jax.Array]:
    """Symmetric codes of activations and their scales, found from the values.

    Args:
      x: ``[..., features]``, floating.
      bits: Width of a code.
      per: One scale per ``"token"`` (over the last axis), or one for the ``"tensor"``.

    Returns:
      Whole numbers in ``[-2^(bits-1), 2^(bits-1) - 1]``, float32, of the shape of `x`;
      scales, float32, ``[..., 1]`` or all sizes 1.

    Examples:
      >>> codes, scale = activation_codes(jnp.array([[0.7, -0.31]]), bits=4)
      >>> print(codes, scale)
      [[ 7. -3.]] [[0.1]]
    """
    wide = x.astype(jnp.float32)
    axes = -1 if per == "token" else None
    largest = jnp.max(jnp.abs(wide), axes, keepdims=True)
    top = 2.0 ** (bits - 1)
    scale = affine.exact_divide(jnp.maximum(largest, affine.SMALLEST_RANGE), top - 1.0)
    codes = jnp.clip(jnp.round(affine.exact_divide(wide, scale)), -top, top - 1.0)
    return codes, scale


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _straight_through(quantizer, x):
    return quantizer(x)


@_straight_through.defjvp
def _straight_through_jvp(quantizer, primals, tangents):
    return _straight_through(quantizer, *primals), tangents[0]
