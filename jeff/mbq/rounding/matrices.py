"""Weights of any axes as stacks of matrices ``[K, N]``, and back."""

import dataclasses
import math
from collections.abc import Sequence

import jax
import numpy as np

from jeff.quantize import groups

__all__ = ["Matrices"]


@dataclasses.dataclass(frozen=True)
class Matrices:
    """How the axes of a weight become ``[stack, K, N]``.

    Attributes:
      shape: Shape of the weight.
      contract: Axes that a product sums over, negative, in row-major order: `K`.
      stack: Axes of which each entry is a matrix of its own, negative.
      outputs: The other axes, negative: `N`.

    Examples:
      >>> import jax.numpy as jnp
      >>> heads = Matrices.of((2, 3, 8), contract_axes=(0, 1))
      >>> w = jnp.arange(48.0).reshape(2, 3, 8)
      >>> heads.split(w).shape, heads.k
      ((1, 6, 8), 6)
      >>> bool((heads.restore(heads.split(w), w.shape) == w).all())
      True
    """

    shape: tuple[int, ...]
    contract: tuple[int, ...]
    stack: tuple[int, ...]
    outputs: tuple[int, ...]

    @classmethod
    def of(
        cls,
        shape: Sequence[int],
        *,
        contract_axes: Sequence[int],
        stack_axes: Sequence[int] = (),
    ) -> "Matrices":
        """From the axes of a weight.

        Args:
          shape: Its shape.
          contract_axes: Axes that a product sums over.
          stack_axes: Axes of which each entry is a weight of its own.

        Raises:
          TypeError: If axes are no sequence of integers.
          ValueError: If an axis is out of range or given twice.
        """
        ndim = len(shape)
        contract = groups.normalize_axes(contract_axes, ndim, "contract_axes")
        stack = groups.normalize_axes(stack_axes, ndim, "stack_axes")
        outputs = tuple(a for a in range(-ndim, 0) if a not in (*contract, *stack))
        return cls(tuple(shape), contract, stack, outputs)

    @property
    def stacked(self) -> tuple[int, ...]:
        """Sizes of the stack axes."""
        return tuple(self.shape[a] for a in self.stack)

    @property
    def k(self) -> int:
        """Number of input channels."""
        return math.prod(self.shape[a] for a in self.contract)

    def split(self, w: jax.Array) -> jax.Array:
        """The matrices of a weight.

        Args:
          w: Of shape `shape`.

        Returns:
          ``[stack, K, N]``; one matrix if there are no stack axes.
        """
        n = math.prod(self.shape[a] for a in self.outputs)
        return w.transpose(self._order).reshape((-1, self.k, n))

    def restore(self, matrices: jax.Array, shape: Sequence[int]) -> jax.Array:
        """A weight, or one value per group of it, from its matrices.

        Args:
          matrices: ``[stack, rows, N]``.
          shape: Shape of the result, in the weight's order of axes.

        Returns:
          Of shape `shape`.
        """
        moved = matrices.reshape([shape[i] for i in self._order])
        return moved.transpose(np.argsort([i % len(shape) for i in self._order]))

    @property
    def _order(self) -> tuple[int, ...]:
        return (*self.stack, *self.contract, *self.outputs)
