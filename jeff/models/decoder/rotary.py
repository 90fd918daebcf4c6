"""Rotary position embeddings, with one position a token or three (M-RoPE).

References:
  Su et al., RoFormer, arXiv 2104.09864, section 3.2.2.
  Wang et al., Qwen2-VL, arXiv 2409.12191, section 2.1 (M-RoPE).
"""

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["rotary_tables", "rotate"]


def rotary_tables(
    positions: jax.Array,
    *,
    head_dim: int,
    base: float = 10000.0,
    sections: tuple[int, ...] | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Cosines and sines of ``position * base ** (-2 i / head_dim)``.

    Args:
      positions: int ``[batch, slots]``, or ``[3, batch, slots]`` with `sections`.
      head_dim: Channels of a head, even.
      base: Base of the angles.
      sections: How many of the ``head_dim / 2`` angles follow each of the three
        positions, in that order; without a leading 3 all follow the one.

    Returns:
      Cosines and sines, float32 ``[batch, slots, head_dim / 2]``.

    Raises:
      ValueError: If there are three positions but no `sections`.

    Examples:
      >>> cos, sin = rotary_tables(jnp.arange(3)[None], head_dim=4)
      >>> print(jnp.arctan2(sin, cos)[0].round(2))
      [[0.   0.  ]
       [1.   0.01]
       [2.   0.02]]
    """
    half = head_dim // 2
    rates = base ** (-np.arange(half, dtype=np.float64) / half)
    if positions.ndim == 3:
        if sections is None:
            raise ValueError(
                f"positions of shape {positions.shape} need sections (M-RoPE)"
            )
        which = np.repeat(np.arange(len(sections)), sections)
        positions = jnp.moveaxis(positions[which], 0, -1)  # [B, N, half]
    else:
        positions = positions[..., None]
    angles = positions.astype(jnp.float32) * rates.astype(np.float32)
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Rotates channel ``i`` with channel ``i + head_dim / 2``, in float32.

    Args:
      x: Queries or keys, floating ``[batch, slots, heads, head_dim]``.
      cos: From `rotary_tables`.
      sin: From `rotary_tables`.

    Returns:
      The same shape and dtype as `x`.

    Examples:
      >>> cos, sin = rotary_tables(jnp.asarray([[0, 1]]), head_dim=2)
      >>> x = jnp.ones((1, 2, 1, 2))
      >>> print(np.asarray(rotate(x, cos, sin))[0, :, 0].round(3))
      [[ 1.     1.   ]
       [-0.301  1.382]]
    """
    cos, sin = cos[:, :, None, :], sin[:, :, None, :]
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(x.dtype)
