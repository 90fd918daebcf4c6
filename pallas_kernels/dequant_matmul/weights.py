"""Random packed matrices for benchmarks, and what products with them must be."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pallas_kernels import bits as layouts

__all__ = ["Exact", "exact", "random_weights", "random_x", "relative_error"]

_CHUNK = 2**24  # weights held in float64 at a time


class Exact(NamedTuple):
    """A product in float64.

    Attributes:
      product: ``x @ W``, ``[M, N]``.
      bound: ``|x| @ |W|``, ``[M, N]``, which errors are measured by: no sum can be
        more exact than its terms.
    """

    product: np.ndarray
    bound: np.ndarray


def random_weights(
    rng: np.random.Generator, *, size: int, columns: int, bits: int, group_size: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """A packed matrix: any words, integer zero points, scales of 16 bits.

    Scales are such that ``x @ W`` is about as large as x, so that products can be fed
    with products.

    Args:
      rng: NumPy's generator.
      size: K, a multiple of 32 and of `group_size`.
      columns: N.
      bits: Width of a code.
      group_size: Rows of the matrix that share a scale.

    Returns:
      packed uint32 ``[K * bits / 32, N]``, scale bfloat16 ``[K / group_size, N]``, zero
      uint8 of its shape.
    """
    groups = (size // group_size, columns)
    words = rng.integers(0, 2**32, (size * bits // 32, columns), np.uint32)
    spread = math.sqrt((4**bits - 1) / 6)  # of code - zero, both uniform
    scale = rng.uniform(0.5, 1.5, groups) / (spread * math.sqrt(size * 13 / 12))
    zero = rng.integers(0, 2**bits, groups, np.uint8)
    return jnp.asarray(words), jnp.asarray(scale, jnp.bfloat16), jnp.asarray(zero)


def random_x(rng: np.random.Generator, rows: int, size: int, dtype) -> jax.Array:
    """Standard normal activations.

    Args:
      rng: NumPy's generator.
      rows: M.
      size: K.
      dtype: Dtype.

    Returns:
      ``[M, K]``.
    """
    return jnp.asarray(rng.standard_normal((rows, size), np.float32), dtype)


def exact(
    x: jax.Array, packed: jax.Array, scale: jax.Array, zero: jax.Array, *, bits: int
) -> Exact:
    """The product in float64, on the host, some columns at a time.

    Args:
      x: ``[M, K]``.
      packed: uint32 ``[K * bits / 32, N]``, at the default stride of K.
      scale: ``[K / group_size, N]``.
      zero: Of the shape of `scale`.
      bits: Width of a code.

    Returns:
      Product and bound.
    """
    size, columns = x.shape[1], packed.shape[1]
    stride = layouts.default_stride(size)
    rows = np.asarray(x, np.float64)
    products, bounds = [], []
    step = max(_CHUNK // size, 1)
    for start in range(0, columns, step):
        part = np.s_[:, start : start + step]
        codes = layouts.unpack(packed[part], bits=bits, axis=0, stride=stride)
        group = size // scale.shape[0]
        scales, zeros = (
            np.repeat(np.asarray(a[part], np.float64), group, 0) for a in (scale, zero)
        )
        dense = (np.asarray(codes, np.float64) - zeros) * scales
        products.append(rows @ dense)
        bounds.append(np.abs(rows) @ np.abs(dense))
    return Exact(np.concatenate(products, 1), np.concatenate(bounds, 1))


def relative_error(got, want: Exact) -> float:
    """The largest error, each relative to ``|x| @ |W|``; infinite if any is no number.

    Args:
      got: ``[M, N]``.
      want: Of the same shape.

    Examples:
      >>> want = Exact(np.array([[1.0]]), np.array([[4.0]]))
      >>> relative_error(np.array([[1.5]]), want)
      0.125
    """
    got = np.asarray(got, np.float64)
    if got.shape != want.product.shape or not np.isfinite(got).all():
        return math.inf
    tiny = np.finfo(np.float64).tiny
    return float(np.max(np.abs(got - want.product) / np.maximum(want.bound, tiny)))
