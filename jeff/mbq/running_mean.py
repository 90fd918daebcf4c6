"""A mean kept as a sum and a count, so that batches can stream through."""

from typing import NamedTuple

import jax

__all__ = ["RunningMean"]


class RunningMean(NamedTuple):
    """A mean over batches: add up both fields, divide at the end.

    Attributes:
      total: float32 ``[...]``, sum over what was seen.
      count: float32, broadcastable to `total`: how much was seen.

    Examples:
      >>> import jax.numpy as jnp
      >>> a = RunningMean(jnp.float32(6.0), jnp.float32(2.0))
      >>> b = RunningMean(jnp.float32(0.0), jnp.float32(1.0))
      >>> print(a.merge(b).value)
      2.0
    """

    total: jax.Array
    count: jax.Array

    def merge(self, other: "RunningMean") -> "RunningMean":
        """The mean over what both have seen.

        Args:
          other: Another mean, of the same shapes.

        Returns:
          Their sum, field by field.
        """
        return RunningMean(self.total + other.total, self.count + other.count)

    @property
    def value(self) -> jax.Array:
        """The mean; NaN where nothing was counted."""
        return self.total / self.count
