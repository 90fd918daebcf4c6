"""What the implementations of the product are told besides the arrays."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pallas_kernels import threefry
from pallas_kernels.draw_matmul.config import Config

__all__ = ["Options", "normal"]


def normal(key: jax.Array, count: int) -> jax.Array:
    """Standard normal numbers of one row, those of `jax.random.normal`: the default.

    Args:
      key: A typed key (Threefry).
      count: How many.

    Returns:
      float32 ``[count]``.

    Examples:
      >>> normal(jax.random.key(0), 3).shape
      (3,)
    """
    return jax.random.normal(threefry.unrolled(key), (count,), jnp.float32)


class Options(NamedTuple):
    """How a product is made.

    Attributes:
      method: ``"dm"`` or ``"scale_location"``.
      alpha: Share of the columns that is memorised at a time.
      draw: ``draw(key, count) -> float32[count]``.
      tile: Draws held at a time.
      config: Settings of the GPU kernel, or ``None``.
    """

    method: str = "dm"
    alpha: float = 1.0
    draw: Callable[[Any, int], jax.Array] = normal
    tile: int = 2**14
    config: Config | None = None

    def block(self, columns: int) -> int:
        """Columns that are memorised at a time, of all `columns`."""
        return max(1, min(columns, math.ceil(self.alpha * columns - 1e-9)))
