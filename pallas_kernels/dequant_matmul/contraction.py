"""Sums over K in float32, also of arrays whose axes are sharded."""

from typing import Any

import jax
import jax.numpy as jnp

from pallas_kernels.dequant_matmul.operand import Operand

__all__ = ["dot", "is_sharded", "sharded", "start"]


def dot(x: jax.Array, w: jax.Array, precision: Any = None) -> jax.Array:
    """A dense product summed in float32.

    Args:
      x: ``[M, K]``.
      w: ``[K, N]``.
      precision: As in `jax.numpy.matmul`.

    Returns:
      ``[M, N]``, float32.
    """
    if x.dtype != w.dtype:
        x, w = x.astype(jnp.float32), w.astype(jnp.float32)
    return jnp.matmul(x, w, precision=precision, preferred_element_type=jnp.float32)


def start(x: jax.Array, w: Operand) -> jax.Array:
    """What sums ``[M, N]`` start from: 0, with the shards of the operands in its type.

    Inside `shard_map`, or on a mesh of explicit axes, a plain 0 has another type than
    the sum it becomes. The values that lend the type are never looked at.

    Args:
      x: ``[M, K]``.
      w: ``[K, N]``.

    Returns:
      Zeros, ``[M, N]``, float32.
    """
    like = x[:, :1].astype(jnp.float32)
    for a in jax.tree.leaves(w):
        like = like + a[:1].astype(jnp.float32)
    return jnp.where(False, like, 0.0)


def is_sharded(x: jax.Array, w: Operand) -> bool:
    """Whether K is sharded in the arrays' types, as on meshes of explicit axes.

    JAX refuses to scan over such an axis; every device then decodes its own part.

    Args:
      x: ``[M, K]``.
      w: ``[K, N]``.
    """
    return sharded(x, 1) or sharded(w.words, 0)


def sharded(a: jax.Array, axis: int) -> bool:
    """Whether an axis is sharded in the type of an array.

    Args:
      a: Any array.
      axis: The axis, from the front.
    """
    return jax.typeof(a).sharding.spec[axis] is not None
