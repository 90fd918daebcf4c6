"""The product with drawn matrices in loops: noise lives in a small tile, never longer.

The columns of the matrix are cut into blocks. Of a block, what all voters share (the
*feature*: ``eta = x @ mean`` and ``beta = x * std``) is memorised, all voters are
finished, and the block is dropped. Within it, noise is drawn for some columns of some
voters at a time.

References:
  Feature decomposition and memorisation, memory-friendly blocks: arXiv 2005.03857.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pallas_kernels import threefry
from pallas_kernels.draw_matmul.options import Options

__all__ = ["multiply"]


def multiply(
    keys: jax.Array, x: jax.Array, mean: jax.Array, std: jax.Array, options: Options
) -> jax.Array:
    """``x @ (mean + std * H)`` for every key, H drawn in the loop.

    Args:
      keys: ``[G, T]``, a key per branch and voter.
      x: ``[G, B, K]``, the rows of every branch.
      mean: ``[K, N]``.
      std: ``[K, N]``.
      options: The method, the size of blocks and tiles, and the draw.

    Returns:
      ``[G, T, B, N]``, float32.
    """
    inner, outer = mean.shape
    feature = _decomposed if options.method == "dm" else _scaled
    piece = max(1, options.tile // inner)

    def block(start, size):
        of_block = _Block(mean, std, start, size, min(piece, size))
        numbers = _cut(np.arange(outer, dtype=np.uint32), start, size)

        def branch(of_branch):
            branch_keys, rows = of_branch
            shared, finish = feature(rows.astype(jnp.float32), of_block)

            def columns(start, size):
                own, mine = jax.tree.map(
                    lambda a: _cut(a, start, size), (numbers, shared)
                )

                def voter(key):
                    return finish(mine, _noise(key, own, inner, options.draw))

                voters = branch_keys.shape[0]
                together = _even(voters, max(1, options.tile // (size * inner)))
                made = jax.lax.map(voter, branch_keys, batch_size=together)
                return jnp.moveaxis(made, -1, 0)

            return _in_pieces(columns, size, of_block.piece)

        if keys.shape[0] == 1:
            return branch((keys[0], x[0]))[:, None]
        return jnp.moveaxis(jax.lax.map(branch, (keys, x)), 0, 1)

    return jnp.moveaxis(_in_pieces(block, outer, options.block(outer)), 0, -1)


class _Block(NamedTuple):
    """Some columns of the matrix, which are never copied as a whole."""

    mean: jax.Array
    std: jax.Array
    start: Any
    size: int
    piece: int

    def columns(self, array):
        """The block's columns of `mean` or `std`, as rows, float32."""
        return _cut(array, self.start, self.size, axis=1).T.astype(jnp.float32)


def _decomposed(x, block: _Block) -> tuple[Any, Callable[..., jax.Array]]:
    """What the voters of some rows share, by column, and the rest of their product."""

    def eta_of(start, size):
        mean = block.mean
        if size < mean.shape[1]:
            numbers = np.arange(mean.shape[1], dtype=np.uint32)
            first = _cut(_cut(numbers, block.start, block.size), start, 1)[0]
            mean = jax.lax.dynamic_slice_in_dim(mean, first, size, 1)
        return (x @ mean.astype(jnp.float32)).T

    whole = block.size == block.mean.shape[1]
    eta = _in_pieces(eta_of, block.size, block.size if whole else block.piece)
    beta = block.columns(block.std)[:, None, :] * x

    def finish(mine, noise):
        eta, beta = mine
        return (eta + jnp.einsum("nbk,nk->nb", beta, noise)).T

    return (eta, beta), finish


def _scaled(x, block: _Block) -> tuple[Any, Callable[..., jax.Array]]:
    """The standard way: every voter has its own weights."""

    def finish(mine, noise):
        centre, width = mine
        return x @ (centre + width * noise).T

    return (block.columns(block.mean), block.columns(block.std)), finish


def _noise(key, numbers, inner, draw) -> jax.Array:
    """Standard normal numbers of some columns of one voter, ``[columns, K]``."""
    column_keys = jax.vmap(lambda n: threefry.fold_in(key, n))(numbers)
    return jax.vmap(lambda k: draw(k, inner))(column_keys)


def _cut(array, start, size, axis=0) -> jax.Array:
    if size == array.shape[axis]:
        return jnp.asarray(array)
    return jax.lax.dynamic_slice_in_dim(array, start, size, axis)


def _in_pieces(make, total, size) -> jax.Array:
    """``make(start, size)`` over pieces of the first axis, the last one shorter.

    Starts are unsigned constants, so that slices at them take no arithmetic.
    """
    size = _even(total, size)
    full, rest = divmod(total, size)
    parts = []
    if full == 1:
        parts.append(make(np.uint32(0), size))
    elif full:
        starts = np.arange(0, full * size, size, dtype=np.uint32)
        made = jax.lax.map(lambda start: make(start, size), starts)
        parts.append(made.reshape(full * size, *made.shape[2:]))
    if rest:
        parts.append(make(np.uint32(full * size), rest))
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts)


def _even(total, size) -> int:
    """A size that divides the total, if one is near: no remainder to be compiled."""
    size = min(total, size)
    return next((n for n in range(size, size // 2, -1) if total % n == 0), size)
