"""GPTQ's recursion: one input channel after the other, later ones making good.

Channel `i` of ``w [K, N]`` is rounded to ``q_i``; what that costs is made good as well
as it can be by the channels that are not rounded yet. With `U` the upper triangular
factor of the inverse Hessian, ``H^-1 = U^T U``::

    e_i = (w_i - q_i) / U_ii            w_j <- w_j - U_ij e_i        for all j > i

and the error that is left, ``trace((w - q)^T H (w - q))``, is ``sum_i |e_i|^2``: every
channel pays only for what the later ones cannot explain, ``1 / U_ii^2 <= H_ii``.
Within a block of channels the corrections are applied one by one, and to all channels
after the block at its end with one product.

References:
  GPTQ, arXiv 2210.17323, section 3.3 and algorithm 1 (there `w` is transposed and
  channels are columns).
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jeff.quantize import QuantConfig, affine

__all__ = ["sweep"]


def sweep(
    w: jax.Array,
    upper: jax.Array,
    rows: tuple[jax.Array, jax.Array | None] | None,
    *,
    config: QuantConfig,
    block: int,
    size: int,
) -> tuple[jax.Array, Any]:
    """Rounds channel after channel, in the order given.

    Args:
      w: float32 ``[K, N]``.
      upper: Upper triangular factor of the inverse Hessian, ``[K, K]``.
      rows: Scale and zero point (or ``None``) of every weight, ``[K, N]``; ``None``
        finds them at the start of every group, from the weights as earlier
        corrections left them.
      config: The quantizer.
      block: Channels per block; if scales are to be found, it divides `size` or is a
        multiple of it.
      size: Channels per group.

    Returns:
      ``(codes, found)``: uint8 ``[K, N]``, and the scales and zero points
      ``[groups, N]`` if they were to be found, else ``()``.

    Examples:
      The second channel makes good 0.9 of what the first lost; steps are 1:

      >>> w = jnp.array([[0.4], [0.4], [3.0], [0.0]])
      >>> upper = jnp.eye(4).at[0, 1].set(-0.9)
      >>> codes, _ = sweep(w, upper, None, config=QuantConfig(bits=2), block=2, size=4)
      >>> print(codes[:, 0])
      [0 1 3 0]

    References:
      GPTQ, arXiv 2210.17323, algorithm 1.
    """
    k, n = w.shape
    block = min(block, k)
    span = block if rows is not None else max(block, size)  # of whole groups and blocks
    pad = -k % span  # zero weights, which err by nothing and are corrected by nothing
    w = jnp.pad(w, ((0, pad), (0, 0)))
    upper = jnp.pad(upper, ((0, pad), (0, pad)))
    upper += jnp.diag((jnp.arange(k + pad) >= k).astype(jnp.float32))
    if rows is not None:
        rows = jax.tree.map(
            lambda a: jnp.pad(a, ((0, pad), (0, 0)), constant_values=1), rows
        )

    def span_step(w, start):
        if rows is None:
            found = affine.affine_parameters(_take(w, start, span), config)
            here = jax.tree.map(lambda a: jnp.repeat(a, size, axis=0), found)
        else:
            found, here = (), jax.tree.map(lambda a: _take(a, start, span), rows)

        def block_step(w, at):
            own = jax.tree.map(lambda a: _take(a, at, block), here)
            return _round_block(w, upper, start + at, own, bits=config.bits)

        w, codes = lax.scan(block_step, w, jnp.arange(0, span, block))
        return w, (codes.reshape(span, n), found)

    _, (codes, found) = lax.scan(span_step, w, jnp.arange(0, k + pad, span))
    codes = codes.reshape(k + pad, n)[:k]
    found = jax.tree.map(lambda a: a.reshape(-1, n)[: k // size], found)
    return codes, found


def _round_block(w, upper, at, parameters, *, bits):
    """All weights after a block of channels is rounded, and the block's codes."""
    scale, zero = parameters
    block, n = scale.shape
    factor = _take(upper, at, block)  # [block, K]
    own = lax.dynamic_slice_in_dim(factor, at, block, axis=1)

    def channel_step(i, carry):
        rows, codes, errors = carry
        row, step = rows[i], scale[i]
        offset = None if zero is None else zero[i]
        code = affine.encode(row, step, offset, bits=bits)
        left = row - affine.decode(code, step, offset, bits=bits)
        error = left / own[i, i]
        rows = rows - own[i][:, None] * error
        return rows, codes.at[i].set(code), errors.at[i].set(error)

    start = (
        _take(w, at, block),
        jnp.zeros((block, n), jnp.uint8),
        jnp.zeros((block, n), jnp.float32),
    )
    _, codes, errors = lax.fori_loop(0, block, channel_step, start)
    later = jnp.arange(w.shape[0]) >= at + block
    correction = jnp.where(later, factor, 0.0)
    return w - jnp.matmul(correction.T, errors, precision="highest"), codes


def _take(a, start, size):
    return lax.dynamic_slice_in_dim(a, start, size)
