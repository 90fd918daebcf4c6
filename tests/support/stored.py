"""The smallest honest StoredWeight, for tests of code that only needs the contract."""

import dataclasses

import jax
import jax.numpy as jnp

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
    scale = jnp.max(jnp.abs(w), axis=-2, keepdims=True) / 127.0
    return Rounded(jnp.round(w / scale).astype(jnp.int8), scale)
