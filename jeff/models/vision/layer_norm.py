"""Layer normalisation, as vision towers have it.

References:
  Ba et al., Layer Normalization, arXiv 1607.06450.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["layer_norm"]


def layer_norm(params: Mapping[str, Any], x: jax.Array, *, eps: float) -> jax.Array:
    """``scale * (x - mean) / sqrt(var + eps) + bias``, statistics in float32.

    Args:
      params: ``scale`` and ``bias``, ``[width]``, of the dtype of `x`.
      x: ``[..., width]``.
      eps: Added to the variance.

    Returns:
      The shape and dtype of `x`.

    Examples:
      >>> ones = {"scale": jnp.ones(2), "bias": jnp.ones(2)}
      >>> print(layer_norm(ones, jnp.asarray([3.0, 7.0]), eps=0.0))
      [0. 2.]
    """
    wide = x.astype(jnp.float32)
    wide = wide - wide.mean(axis=-1, keepdims=True)
    wide = wide * jax.lax.rsqrt(jnp.mean(wide**2, axis=-1, keepdims=True) + eps)
    return params["scale"] * wide.astype(x.dtype) + params["bias"]
