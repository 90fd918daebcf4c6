"""Picking the next token: the likeliest one, or a draw from the likelier ones.

References:
  Fan et al., arXiv 1805.04833 (top-k); Holtzman et al., arXiv 1904.09751 (top-p).
"""

import jax
import jax.numpy as jnp

from jeff import prng

__all__ = ["likelier", "sample"]


def likelier(
    logits: jax.Array, *, top_k: int | None = None, top_p: jax.Array | None = None
) -> jax.Array:
    """Scores with the unlikely tokens at minus infinity.

    Args:
      logits: float ``[batch, vocabulary]``.
      top_k: How many to keep; more where scores are equal to the last one kept.
      top_p: Keeps the fewest tokens, likeliest first, whose probabilities add up to at
        least this, of what `top_k` left; in (0, 1].

    Returns:
      The same shape and dtype.

    Examples:
      >>> scores = jnp.log(jnp.asarray([[0.5, 0.3, 0.15, 0.05]]))
      >>> print(likelier(scores, top_k=3) > -jnp.inf)
      [[ True  True  True False]]
      >>> print(likelier(scores, top_p=jnp.float32(0.6)) > -jnp.inf)
      [[ True  True False False]]
    """
    if top_k is not None:
        least = jax.lax.top_k(logits, top_k)[0][:, -1:]
        logits = jnp.where(logits < least, -jnp.inf, logits)
    if top_p is not None:
        falling = jax.lax.rev(jnp.sort(logits, axis=-1), (1,))
        p = jax.nn.softmax(falling, axis=-1)
        before = jnp.cumsum(p, axis=-1) - p  # of everything likelier
        kept = jnp.where(before < top_p, falling, jnp.inf)
        logits = jnp.where(logits < kept.min(-1, keepdims=True), -jnp.inf, logits)
    return logits


def sample(
    key: jax.Array,
    logits: jax.Array,
    step: int | jax.Array,
    *,
    temperature: float | jax.Array,
    top_k: int | None = None,
    top_p: jax.Array | None = None,
) -> jax.Array:
    """A token per row, drawn with a key of its own.

    A row's draw depends on `key`, the number of the row and `step`: not on how many
    rows there are, nor on what they hold.

    Args:
      key: Random key of the whole generation.
      logits: float ``[batch, vocabulary]``.
      step: Number of the token.
      temperature: Divides the scores, positive.
      top_k: As in `likelier`.
      top_p: As in `likelier`.

    Returns:
      int32 ``[batch]``.

    Examples:
      >>> scores = jnp.zeros((3, 100))
      >>> jax.jit(sample)(jax.random.key(0), scores, 0, temperature=1.0).shape
      (3,)
    """
    logits = likelier(logits / temperature, top_k=top_k, top_p=top_p)

    def draw(row: jax.Array, scores: jax.Array) -> jax.Array:
        return jax.random.categorical(prng.named_key(key, "token", row, step), scores)

    rows = jnp.arange(len(logits), dtype=jnp.int32)
    return jax.vmap(draw)(rows, logits).astype(jnp.int32)
