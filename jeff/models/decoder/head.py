"""Both ends of a decoder: tokens to embeddings, and the residual stream to scores."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["embed", "logits"]


def embed(params: Mapping[str, Any], tokens: jax.Array) -> jax.Array:
    """Rows of the embedding.

    Args:
      params: Parameters of the decoder; ``embed`` ``[vocabulary, width]`` is read.
      tokens: int ``[...]``; those out of range take the nearest row.

    Returns:
      ``[..., width]``.

    Examples:
      >>> print(embed({"embed": jnp.eye(3)}, jnp.asarray([[2, 0]])))
      [[[0. 0. 1.]
        [1. 0. 0.]]]
    """
    return jnp.take(params["embed"], tokens, axis=0, mode="clip")


def logits(params: Mapping[str, Any], x: jax.Array) -> jax.Array:
    """Scores over the vocabulary: by the output matrix, or the embedding if tied.

    Args:
      params: Parameters of the decoder; ``head``, or else ``embed``, is read.
      x: Normalised residual stream ``[..., width]``.

    Returns:
      float32 ``[..., vocabulary]``.

    Examples:
      >>> print(logits({"embed": jnp.eye(3)}, jnp.arange(3.0)))
      [0. 1. 2.]
    """
    if "head" in params:
        w = params["head"]["kernel"]
        return jnp.matmul(x, w, preferred_element_type=jnp.float32)
    return jnp.einsum(
        "...d,vd->...v", x, params["embed"], preferred_element_type=jnp.float32
    )
