"""Decoding with a cache of keys and values: a prompt at once, then token by token.

The cache is an ordinary array per kind, of a fixed number of slots. Every row of a
batch writes into the same slot, which is why prompts are padded on the left.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jeff.models.decoder.block import attend, attend_in_pieces, block, rms_norm
from jeff.models.decoder.config import DecoderConfig, Sequence, check_sequence
from jeff.models.decoder.head import embed, logits
from jeff.models.decoder.rotary import rotary_tables

__all__ = ["Cache", "prefill", "step"]


class Cache(NamedTuple):
    """Keys and values of the slots so far.

    Attributes:
      key: Rotated keys, floating ``[layers, batch, slots, kv_heads, head_dim]``.
      value: Values, as `key`.
      valid: bool ``[batch, slots]``: which slots hold a token.
      next: int32 scalar, the slot to write next.
      position: int32 ``[batch]``, the rotary position of the token written next.
    """

    key: jax.Array
    value: jax.Array
    valid: jax.Array
    next: jax.Array
    position: jax.Array


def prefill(
    params: Mapping[str, Any],
    sequence: Sequence,
    *,
    config: DecoderConfig,
    length: int,
    dtype: Any = None,
) -> tuple[jax.Array, Cache]:
    """Reads a prompt: scores of the token after it, and a cache to go on from.

    Attention takes as many queries at a time as `attend_in_pieces` lets it, so a long
    prompt needs memory for its keys and values, not for the square of its length.

    Args:
      params: Parameters of the decoder, listed or stacked.
      sequence: The prompt, padded on the left to ``slots``.
      config: Sizes.
      length: Slots of the cache: the prompt's and those of what is to follow.
      dtype: Floating dtype of the cache; ``None`` takes that of the embeddings.

    Returns:
      ``(logits, cache)``: float32 ``[batch, vocabulary]`` of the last slot only, and
      the cache with `length` slots, whose next one is ``slots``.

    Raises:
      ValueError: If a shape does not fit, or `length` is less than the prompt.

    Examples:
      >>> from jeff.models import decoder
      >>> config = decoder.DecoderConfig(vocabulary=8, width=4, layers=1, heads=2,
      ...                                kv_heads=1, head_dim=2, hidden=4)
      >>> params = decoder.init(jax.random.key(0), config)
      >>> prompt = decoder.text(params, jnp.asarray([[5, 1, 2]]))
      >>> read = jax.jit(prefill, static_argnames=("config", "length"))
      >>> scores, cache = read(params, prompt, config=config, length=5)
      >>> scores.shape, cache.key.shape, int(cache.next)
      ((1, 8), (1, 1, 5, 1, 2), 3)
    """
    check_sequence(sequence, config)
    x, positions, valid = sequence
    batch, slots = valid.shape
    if length < slots:
        raise ValueError(f"length must be at least the prompt's {slots}, got {length}")
    kind = x.dtype if dtype is None else jnp.dtype(dtype)
    rotary = rotary_tables(
        positions,
        head_dim=config.head_dim,
        base=config.rope_base,
        sections=config.rope_sections,
    )
    allowed = jnp.tril(jnp.ones((slots, slots), bool)) & valid[:, None, :]

    def one(layer, x):
        kept = []

        def remember(q, k, v):
            kept.extend((k.astype(kind), v.astype(kind)))
            return attend_in_pieces(q, k, v, allowed)

        return block(layer, x, rotary, remember, config=config), tuple(kept)

    layers = params["layers"]
    if isinstance(layers, Mapping):
        x, (key, value) = lax.scan(lambda x, layer: one(layer, x), x, layers)
    else:
        pairs = []
        for layer in layers:
            x, pair = one(layer, x)
            pairs.append(pair)
        key, value = (jnp.stack(part) for part in zip(*pairs, strict=True))
    room = ((0, 0), (0, 0), (0, length - slots), (0, 0), (0, 0))
    reached = jnp.where(valid, positions, -1).max(axis=-1)  # [B], or [3, B]
    reached = reached.max(axis=0) if reached.ndim == 2 else reached
    cache = Cache(
        key=jnp.pad(key, room),
        value=jnp.pad(value, room),
        valid=jnp.pad(valid, ((0, 0), (0, length - slots))),
        next=jnp.asarray(slots, jnp.int32),
        position=(reached + 1).astype(jnp.int32),
    )
    last = rms_norm(x[:, -1], params["norm"], eps=config.norm_eps)
    return logits(params, last), cache


def step(
    params: Mapping[str, Any],
    cache: Cache,
    tokens: jax.Array,
    *,
    config: DecoderConfig,
) -> tuple[jax.Array, Cache]:
    """Reads one more token in every row.

    Inside a loop or with the cache donated, the cache is written in place. A cache
    with no free slot has its last one overwritten: count the steps.

    Args:
      params: Parameters of the decoder, listed or stacked.
      cache: From `prefill` or `step`.
      tokens: int32 ``[batch]``.
      config: Sizes.

    Returns:
      ``(logits, cache)``: float32 ``[batch, vocabulary]`` of the token after, and the
      cache with the token's slot written.

    Raises:
      ValueError: If `tokens` does not fit the cache.

    Examples:
      >>> from jeff.models import decoder
      >>> config = decoder.DecoderConfig(vocabulary=8, width=4, layers=1, heads=2,
      ...                                kv_heads=1, head_dim=2, hidden=4)
      >>> params = decoder.init(jax.random.key(0), config)
      >>> prompt = decoder.text(params, jnp.asarray([[5, 1, 2]]))
      >>> read = jax.jit(prefill, static_argnames=("config", "length"))
      >>> _, cache = read(params, prompt, config=config, length=5)
      >>> go_on = jax.jit(step, static_argnames="config", donate_argnames="cache")
      >>> scores, cache = go_on(params, cache, jnp.asarray([3]), config=config)
      >>> scores.shape, int(cache.next), int(cache.position[0])
      ((1, 8), 4, 4)
    """
    if tokens.shape != cache.position.shape:
        raise ValueError(
            f"tokens must be {cache.position.shape}, one a row, got {tokens.shape}"
        )
    x = embed(params, tokens[:, None])
    rotary = rotary_tables(
        cache.position[:, None], head_dim=config.head_dim, base=config.rope_base
    )
    valid = lax.dynamic_update_slice(
        cache.valid, jnp.ones((len(tokens), 1), bool), (0, cache.next)
    )

    def one(layer, i, x, keys, values):
        stores = [keys, values]

        def remember(q, *new):
            for n, entry in enumerate(new):
                entry = entry.astype(stores[n].dtype)[None]
                stores[n] = lax.dynamic_update_slice(
                    stores[n], entry, (i, 0, cache.next, 0, 0)
                )
            k, v = (
                lax.dynamic_index_in_dim(s, i, axis=0, keepdims=False) for s in stores
            )
            return attend(q, k, v, valid[:, None, :])

        return block(layer, x, rotary, remember, config=config), *stores

    layers = params["layers"]
    carry = (x, cache.key, cache.value)
    if isinstance(layers, Mapping):

        def body(carry, entry):
            layer, i = entry
            return one(layer, i, *carry), None

        numbers = jnp.arange(config.layers, dtype=jnp.int32)
        carry, _ = lax.scan(body, carry, (layers, numbers))
    else:
        for i, layer in enumerate(layers):
            carry = one(layer, i, *carry)
    x, keys, values = carry
    last = rms_norm(x[:, -1], params["norm"], eps=config.norm_eps)
    return logits(params, last), Cache(
        key=keys,
        value=values,
        valid=valid,
        next=cache.next + 1,
        position=cache.position + 1,
    )
