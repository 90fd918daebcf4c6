"""One decoder layer: grouped-query attention, then a gated MLP, each after a norm.

References:
  Touvron et al., LLaMA, arXiv 2302.13971, section 2.2.
  Ainslie et al., GQA, arXiv 2305.13245.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jeff.models.decoder.config import DecoderConfig
from jeff.models.decoder.rotary import rotate

__all__ = ["attend", "attend_in_pieces", "block", "linear", "rms_norm"]

Attend = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def rms_norm(x: jax.Array, weight: jax.Array, *, eps: float) -> jax.Array:
    """``weight * x / sqrt(mean(x^2) + eps)``, the mean in float32.

    Args:
      x: ``[..., width]``.
      weight: ``[width]``, of the dtype of `x`.
      eps: Added to the mean square.

    Returns:
      The shape and dtype of `x`.

    Examples:
      >>> print(rms_norm(jnp.asarray([7.0, 1.0]), 5 * jnp.ones(2), eps=0.0))
      [7. 1.]
    """
    wide = x.astype(jnp.float32)
    wide = wide * jax.lax.rsqrt(jnp.mean(wide**2, axis=-1, keepdims=True) + eps)
    return weight * wide.astype(x.dtype)


def linear(params: Mapping[str, Any], x: jax.Array) -> jax.Array:
    """``x @ kernel``, plus ``bias`` where there is one.

    Args:
      params: ``kernel`` ``[in, out]`` and maybe ``bias`` ``[out]``.
      x: ``[..., in]``.

    Returns:
      ``[..., out]``.

    Examples:
      >>> print(linear({"kernel": 2 * jnp.eye(2), "bias": jnp.ones(2)}, jnp.ones(2)))
      [3. 3.]
    """
    y = x @ params["kernel"]
    return y + params["bias"] if "bias" in params else y


def attend(
    query: jax.Array, key: jax.Array, value: jax.Array, allowed: jax.Array
) -> jax.Array:
    """Attention of grouped queries; scores and softmax in float32.

    A query that may see nothing sees everything equally: finite, and of no use.

    Args:
      query: ``[batch, queries, heads, head_dim]``.
      key: ``[batch, slots, kv_heads, head_dim]``, of any floating dtype.
      value: As `key`.
      allowed: bool ``[batch, queries, slots]``.

    Returns:
      ``[batch, queries, heads, head_dim]`` in the dtype of `query`.

    Examples:
      >>> value = jnp.arange(3.0).reshape(1, 3, 1, 1)
      >>> causal = jnp.tril(jnp.ones((1, 3, 3), bool))
      >>> print(attend(jnp.ones((1, 3, 2, 1)), 0 * value, value, causal)[0, :, :, 0])
      [[0.  0. ]
       [0.5 0.5]
       [1.  1. ]]
    """
    batch, queries, heads, size = query.shape
    kv_heads = key.shape[2]
    key, value = key.astype(query.dtype), value.astype(query.dtype)
    grouped = query.reshape(batch, queries, kv_heads, heads // kv_heads, size)
    scores = jnp.einsum(
        "bqkgd,bskd->bkgqs", grouped, key, preferred_element_type=jnp.float32
    )
    scores = jnp.where(
        allowed[:, None, None], scores * size**-0.5, jnp.finfo(jnp.float32).min
    )
    weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    mixed = jnp.einsum("bkgqs,bskd->bqkgd", weights, value)
    return mixed.reshape(query.shape)


def attend_in_pieces(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    allowed: jax.Array,
    *,
    scores: int = 2**26,
) -> jax.Array:
    """`attend`, some queries at a time where all at once would take much memory.

    Args:
      query: As for `attend`.
      key: As for `attend`.
      value: As for `attend`.
      allowed: As for `attend`.
      scores: How many float32 scores may be held at once, 256 MiB by default; those
        of one query of every row and head are always held.

    Returns:
      As `attend`.

    Examples:
      >>> query = jnp.arange(10.0).reshape(1, 5, 2, 1)
      >>> causal = jnp.tril(jnp.ones((1, 5, 5), bool))
      >>> whole = attend(query, query, query, causal)
      >>> pieces = attend_in_pieces(query, query, query, causal, scores=20)
      >>> bool(jnp.allclose(whole, pieces))
      True
    """
    batch, queries, heads, _ = query.shape
    rows = max(scores // (batch * heads * key.shape[1]), 1)
    if rows >= queries:
        return attend(query, key, value, allowed)
    count = -(-queries // rows)

    def pieces(a: jax.Array) -> jax.Array:  # [count, batch, rows, ...]
        room = [(0, 0), (0, count * rows - queries)] + [(0, 0)] * (a.ndim - 2)
        split = jnp.pad(a, room).reshape(a.shape[0], count, rows, *a.shape[2:])
        return split.swapaxes(0, 1)

    mixed = jax.lax.map(
        lambda piece: attend(piece[0], key, value, piece[1]),
        (pieces(query), pieces(allowed)),
    )
    mixed = mixed.swapaxes(0, 1).reshape(batch, count * rows, *query.shape[2:])
    return mixed[:, :queries]


def block(
    layer: Mapping[str, Any],
    x: jax.Array,
    rotary: tuple[jax.Array, jax.Array],
    attend: Attend,
    *,
    config: DecoderConfig,
) -> jax.Array:
    """One layer on the residual stream.

    Args:
      layer: Parameters of one layer, as in `jeff.models.decoder`.
      x: ``[batch, slots, width]``.
      rotary: From `jeff.models.decoder.rotary.rotary_tables`.
      attend: ``attend(query, key, value)`` over rotated queries and keys
        ``[batch, slots, heads or kv_heads, head_dim]``; a closure decides what is
        allowed and where keys and values are kept.
      config: Sizes.

    Returns:
      The residual stream after the layer.
    """
    h = rms_norm(x, layer["attention_norm"], eps=config.norm_eps)
    q, k, v = (
        linear(layer["attention"][name], h).reshape(*h.shape[:2], -1, config.head_dim)
        for name in ("query", "key", "value")
    )
    y = attend(rotate(q, *rotary), rotate(k, *rotary), v)
    x = x + linear(layer["attention"]["output"], y.reshape(*y.shape[:2], -1))

    h = rms_norm(x, layer["mlp_norm"], eps=config.norm_eps)
    mlp = layer["mlp"]
    return x + linear(
        mlp["down"], jax.nn.silu(linear(mlp["gate"], h)) * linear(mlp["up"], h)
    )
