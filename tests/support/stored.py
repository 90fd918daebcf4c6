"""The smallest honest StoredWeight, for tests of code that only needs the contract."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jeff import base

__all__ = ["Rounded", "rounded"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rounded(base.StoredWeight):
    """Integers times a scale per output channel: ``integers * scale``.

    Attributes:
      integers: int8, shape of the dense weight ``[..., K, N]``.
      scale: float32, ``[..., 1, N]``.
    """

    integers: jax.Array
    scale: jax.Array

    @property
    def shape(self):
        """Shape of the dense weight."""
        return self.integers.shape

    @property
    def dtype(self):
        """Dtype of the dense weight."""
        return self.scale.dtype

    def decode(self):
        """The dense weight."""
        return self.integers.astype(self.scale.dtype) * self.scale

    def codes(self):
        """The stored integers."""
        return self.integers

    def with_codes(self, codes):
        """The same scales with other integers."""
        return Rounded(codes, self.scale)


def rounded(w: jax.Array) -> Rounded:
    """`w`, ``[..., K, N]``, rounded to 127 steps of its largest value per channel."""
    w = np.asarray(w)  # JAX would compile a program for each shape
    scale = np.abs(w).max(axis=-2, keepdims=True) / np.asarray(127, w.dtype)
    return Rounded(jnp.asarray(np.round(w / scale).astype(np.int8)), jnp.asarray(scale))
