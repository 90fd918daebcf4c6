"""The product with drawn matrices as one would write it down: all noise is stored."""

import jax
import jax.numpy as jnp

from pallas_kernels.draw_matmul.options import Options

__all__ = ["multiply"]


def multiply(
    keys: jax.Array, x: jax.Array, mean: jax.Array, std: jax.Array, options: Options
) -> jax.Array:
    """``x @ (mean + std * H)`` for every key, H stored.

    Args:
      keys: ``[G, T]``.
      x: ``[G, B, K]``.
      mean: ``[K, N]``.
      std: ``[K, N]``.
      options: Only `draw` matters.

    Returns:
      ``[G, T, B, N]``, float32.
    """
    inner, outer = mean.shape

    def noise(key):
        rows = jax.vmap(lambda row: jax.random.fold_in(key, row))(jnp.arange(outer))
        return jax.vmap(lambda row: options.draw(row, inner))(rows).T

    h = jax.vmap(jax.vmap(noise))(keys)
    w = mean.astype(jnp.float32) + std.astype(jnp.float32) * h
    return jnp.einsum("gbk,gtkn->gtbn", x.astype(jnp.float32), w)
