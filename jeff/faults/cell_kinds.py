"""What kind a stuck cell is: at high resistance (SAF0) or at low (SAF1).

References:
  FTT-NAS, arXiv 2003.10375, section on weight faults. The shares are measurements of
  C.-Y. Chen et al. 2015 (1.75 % and 9.04 % of cells), as its program rounds them.
"""

import dataclasses

import jax
import jax.numpy as jnp

from jeff.faults.threshold import below
from pallas_kernels.threefry import unrolled

__all__ = ["SAF0", "SAF1", "SAF1_SHARE", "CellKinds"]

SAF1_SHARE = 0.163
"""Share of faulty cells that are stuck at full scale."""

SAF0, SAF1 = 1, 2
"""Kinds of a faulty cell; a healthy one is 0."""


@dataclasses.dataclass(frozen=True)
class CellKinds:
    """Draws kinds of faulty cells; equal shares share compiled programs.

    Attributes:
      share: Probability of SAF1.

    Examples:
      >>> print(jax.jit(lambda key: CellKinds(1.0)(key, (3,)))(jax.random.key(0)))
      [2 2 2]
    """

    share: float

    def __call__(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Kinds, uint8 of `shape`."""
        high = below(jax.random.bits(unrolled(key), shape, jnp.uint32), self.share)
        return jnp.where(high, jnp.uint8(SAF1), jnp.uint8(SAF0))
