"""Text from a prompt: one compiled pass over it, and one compiled loop of tokens."""

import functools
import math
from collections.abc import Mapping
from collections.abc import Sequence as SequenceOf
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import core, lax

from jeff import base, program
from jeff.models import decoder
from jeff.models.decoder.config import DecoderConfig, Sequence, check_sequence
from jeff.models.sampling import sample

__all__ = ["Generated", "check_settings", "generate"]


class Generated(NamedTuple):
    """What was generated.

    Attributes:
      tokens: int32 ``[batch, max_new_tokens]``. What follows a row's text is the stop
        token that ended it, again and again.
      lengths: int32 ``[batch]``, tokens of each row's text, the stop token not counted.
    """

    tokens: jax.Array
    lengths: jax.Array


def generate(
    params: Mapping[str, Any],
    sequence: Sequence,
    *,
    config: DecoderConfig,
    max_new_tokens: int,
    key: jax.Array | None = None,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop_tokens: SequenceOf[int] = (),
    rules: SequenceOf[base.Rule] = (),
    cache_dtype: Any = None,
) -> Generated:
    """Continues prompts, greedily or by sampling.

    Shapes are fixed and the loop ends when every row has met a stop token. A second
    call with the same shapes and settings compiles nothing; `temperature`, `top_p` and
    the stop tokens themselves may change freely.

    Args:
      params: Parameters of the decoder (``params["decoder"]`` of a model), listed or
        stacked; weights may be stored.
      sequence: The prompts, padded on the left.
      config: Sizes.
      max_new_tokens: The most tokens to generate, at least 1.
      key: Random key of the draws; needed if `temperature` is positive. A row's draws
        depend on it, the row's number and the token's, not on the rest of the batch.
      temperature: Divides the scores before a draw; 0 takes the likeliest token.
      top_k: Draw from that many likeliest tokens only.
      top_p: Draw from the likeliest tokens that together have this probability, in
        (0, 1].
      stop_tokens: Tokens that end a row's text.
      rules: Rules of `jeff.rewrite` for stored weights, such as
        `jeff.quantize.fused`; without any they are decoded where used.
      cache_dtype: Floating dtype of the cached keys and values; ``None`` takes that of
        the embeddings.

    Returns:
      The tokens, and how many of them each row has.

    Raises:
      ValueError: If a setting is out of range or of no use, the prompt is empty, a row
        is padding only or not padded on the left, or a shape does not fit.
      TypeError: If `max_new_tokens`, `top_k` or a stop token is no int.

    Examples:
      >>> config = DecoderConfig(vocabulary=8, width=4, layers=1, heads=2, kv_heads=1,
      ...                        head_dim=2, hidden=4)
      >>> params = decoder.init(jax.random.key(0), config)
      >>> prompt = decoder.text(params, jnp.asarray([[5, 1, 2]]))
      >>> out = generate(params, prompt, config=config, max_new_tokens=4)
      >>> out.tokens.shape, out.lengths.tolist()
      ((1, 4), [4])
    """
    check_settings(
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        stop_tokens=stop_tokens,
        vocabulary=config.vocabulary,
    )
    if temperature > 0 and key is None:
        raise ValueError(f"temperature {temperature} needs a key to draw with")
    _check_prompt(sequence, config)
    rules = tuple(rules)
    scores, cache = _read(
        params,
        sequence,
        config=config,
        length=sequence.x.shape[1] + max_new_tokens - 1,
        dtype=cache_dtype if cache_dtype is None else jnp.dtype(cache_dtype),
        rules=rules,
    )
    drawn = temperature > 0
    generated, _ = _write(
        params,
        scores,
        cache,
        jnp.asarray(tuple(stop_tokens), jnp.int32),
        key if drawn else None,
        jnp.float32(temperature) if drawn else None,
        None if top_p is None else jnp.float32(top_p),
        config=config,
        count=max_new_tokens,
        top_k=top_k,
        rules=rules,
    )
    return generated


def check_settings(
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop_tokens: SequenceOf[int] = (),
    vocabulary: int | None = None,
) -> None:
    """Refuses settings of `generate` that are out of range or of no use.

    Args:
      max_new_tokens: As for `generate`.
      temperature: As for `generate`.
      top_k: As for `generate`.
      top_p: As for `generate`.
      stop_tokens: As for `generate`.
      vocabulary: How many tokens there are; ``None`` where no model is read yet.

    Raises:
      ValueError: If a setting is out of range or of no use.
      TypeError: If `max_new_tokens`, `top_k` or a stop token is no int.

    Examples:
      >>> check_settings(max_new_tokens=4, top_k=2)
      Traceback (most recent call last):
        ...
      ValueError: top_k 2 needs a temperature above 0
    """
    if not _is_int(max_new_tokens):
        raise TypeError(f"max_new_tokens must be an int, got {max_new_tokens!r}")
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
    if not 0 <= temperature < math.inf:
        raise ValueError(f"temperature must be at least 0, got {temperature}")
    for name, value in (("top_k", top_k), ("top_p", top_p)):
        if value is not None and temperature == 0:
            raise ValueError(f"{name} {value} needs a temperature above 0")
    if top_k is not None:
        if not _is_int(top_k):
            raise TypeError(f"top_k must be an int, got {top_k!r}")
        if not 1 <= top_k <= (math.inf if vocabulary is None else vocabulary):
            known = "at least 1" if vocabulary is None else f"in [1, {vocabulary}]"
            raise ValueError(f"top_k must be {known}, got {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p must be in (0, 1], got {top_p}")
    for token in stop_tokens:
        if not _is_int(token):
            raise TypeError(f"stop_tokens must be ints, got {token!r}")
        if token < 0 or vocabulary is not None and token >= vocabulary:
            known = "" if vocabulary is None else f" of {vocabulary}"
            raise ValueError(
                f"stop_tokens must be in the vocabulary{known}, got {token}"
            )


@functools.partial(jax.jit, static_argnames=("config", "length", "dtype", "rules"))
def _read(params, sequence, *, config, length, dtype, rules):
    """The prompt: scores of the first token, and the cache."""

    def prefill(params, sequence):
        return decoder.prefill(
            params, sequence, config=config, length=length, dtype=dtype
        )

    return program.rewrite(prefill, *rules)(params, sequence)


@functools.partial(
    jax.jit,
    static_argnames=("config", "count", "top_k", "rules"),
    donate_argnames=("cache",),
)
def _write(
    params, scores, cache, stops, key, temperature, top_p, *,
    config, count, top_k, rules,
):  # fmt: skip
    """All tokens after the prompt, and the cache, which keeps its memory."""
    step = program.rewrite(functools.partial(decoder.step, config=config), *rules)

    def pick(scores, i):
        if key is None:
            return scores.argmax(-1).astype(jnp.int32)
        return sample(key, scores, i, temperature=temperature, top_k=top_k, top_p=top_p)

    def unfinished(carry):
        i, _, _, done, _, _ = carry
        return (i < count) & ~done.all()

    def one(carry):
        i, token, lengths, done, tokens, cache = carry
        scores, cache = step(params, cache, token)
        token = jnp.where(done, token, pick(scores, i))
        done = done | _is_stop(token, stops)
        lengths = lengths + (~done).astype(jnp.int32)
        tokens = lax.dynamic_update_slice(tokens, token[:, None], (0, i))
        return i + 1, token, lengths, done, tokens, cache

    token = pick(scores, 0)
    done = _is_stop(token, stops)
    tokens = jnp.zeros((len(token), count), jnp.int32).at[:, 0].set(token)
    first = (jnp.int32(1), token, (~done).astype(jnp.int32), done, tokens, cache)
    i, token, lengths, _, tokens, cache = lax.while_loop(unfinished, one, first)
    written = jnp.arange(count) < i  # the rest is after every row's end
    return Generated(jnp.where(written, tokens, token[:, None]), lengths), cache


def _is_stop(token: jax.Array, stops: jax.Array) -> jax.Array:
    return (token[:, None] == stops).any(-1)


def _check_prompt(sequence: Sequence, config: DecoderConfig) -> None:
    if 0 in sequence.x.shape[:2]:
        raise ValueError(f"the prompt is empty: its shape is {sequence.x.shape[:2]}")
    check_sequence(sequence, config)
    if isinstance(sequence.valid, core.Tracer):
        return
    valid = np.asarray(sequence.valid)
    padding = np.flatnonzero(~valid.any(axis=1))
    if padding.size:
        raise ValueError(f"rows of the prompt are padding only: {padding.tolist()}")
    right = np.flatnonzero((valid[:, :-1] > valid[:, 1:]).any(axis=1))
    if right.size:
        raise ValueError(f"rows are not padded on the left only: {right.tolist()}")


def _is_int(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
