"""How a site presents itself: ``[..., K] x [K, N]``, whatever the dimension numbers.

A `Presentation` moves the operands of a product, convolution or look-up into the view a
`Rule` sees and moves the result back, so that the original equation runs on the
original layouts (transposes there and back cancel under XLA).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
from jax import lax

from jeff import base
from jeff.program import compat, indexing

__all__ = ["Presentation"]


@dataclasses.dataclass(frozen=True, eq=False)
class Presentation:
    """The layout of one site's operands.

    Attributes:
      eqn: The site's equation.
      kind: ``"dot"``, ``"ragged_dot"``, ``"conv"`` or ``"lookup"``.
      weight: Which operand is the weight.
      activation: Which operand a rule sees as `x`.
      batch: Sizes of the batch axes of the weight (experts, heads).
      k: Contracted size per output element (rows of the table for a look-up).
      n: Number of output features.
      x_shape: Shape of the activation a rule sees.
      y_shape: Shape of the output a rule returns.
      w_permutation: Order of the weight operand's axes in the view.
      contract: Weight operand axes that are contracted.
      macs: Multiply-accumulates of one run of the equation.
      x_permutation: Order of the activation's axes in the view; empty: left alone.
      y_permutation: Order of the output's axes in the view; empty: left alone.

    References:
      Dimension numbers: ``jax.lax.dot_general`` and ``conv_general_dilated``,
      https://docs.jax.dev/en/latest/jax.lax.html.
    """

    eqn: Any
    kind: str
    weight: int
    activation: int
    batch: tuple[int, ...]
    k: int
    n: int
    x_shape: tuple[int, ...]
    y_shape: tuple[int, ...]
    w_permutation: tuple[int, ...]
    contract: tuple[int, ...]
    macs: int
    x_permutation: tuple[int, ...] = ()
    y_permutation: tuple[int, ...] = ()

    @property
    def w_shape(self) -> tuple[int, ...]:
        """Shape of the weight a rule sees."""
        return (*self.batch, self.k, self.n)

    def x_view(self, x: jax.Array) -> jax.Array:
        """The activation as rules see it, of shape `x_shape`.

        Args:
          x: The equation's operand.

        Returns:
          Its view.
        """
        if not self.x_permutation:
            return x
        return lax.transpose(x, self.x_permutation).reshape(self.x_shape)

    def x_restore(self, x: jax.Array) -> jax.Array:
        """Inverse of `x_view`."""
        if not self.x_permutation:
            return x
        shape = self._aval(self.activation).shape
        moved = x.reshape([shape[i] for i in self.x_permutation])
        return lax.transpose(moved, _inverse(self.x_permutation))

    def w_view(self, w: Any) -> Any:
        """The weight as rules see it, of shape `w_shape`.

        Args:
          w: The equation's operand, dense or stored.

        Returns:
          Its view: stored if `w` is and can express the view, else dense.
        """
        moved = w.transpose(self.w_permutation)
        viewed = None if moved is None else moved.reshape(self.w_shape)
        return self.w_view(w.decode()) if viewed is None else viewed

    def w_restore(self, w: Any) -> jax.Array:
        """Inverse of `w_view` for a dense weight."""
        w = w.decode() if base.is_stored(w) else w
        shape = self._aval(self.weight).shape
        moved = w.reshape([shape[i] for i in self.w_permutation])
        return lax.transpose(moved, _inverse(self.w_permutation))

    def y_view(self, y: jax.Array) -> jax.Array:
        """The output as rules see it, of shape `y_shape`.

        Args:
          y: The equation's output.

        Returns:
          Its view.
        """
        if not self.y_permutation:
            return y
        return lax.transpose(y, self.y_permutation).reshape(self.y_shape)

    def y_restore(self, y: jax.Array) -> jax.Array:
        """Inverse of `y_view`."""
        if not self.y_permutation:
            return y
        shape = self.eqn.outvars[0].aval.shape
        moved = y.reshape([shape[i] for i in self.y_permutation])
        return lax.transpose(moved, _inverse(self.y_permutation))

    def run(self, operands: Sequence[Any], x: jax.Array, w: Any) -> jax.Array:
        """The original equation on other operands, in the view of the rules.

        Args:
          operands: The equation's operands; those of the site are replaced.
          x: Activation, of shape `x_shape`.
          w: Weight, of shape `w_shape`, dense or stored.

        Returns:
          The output, of shape `y_shape`.
        """
        values = list(operands)
        values[self.activation] = self.x_restore(x)
        if self.kind == "lookup" and base.is_stored(w):
            return _stored_rows(self.eqn, w, values)
        values[self.weight] = self.w_restore(w)
        return self.y_view(compat.bind(self.eqn, values)[0])

    def _aval(self, operand: int):
        return self.eqn.invars[operand].aval


def _stored_rows(eqn, table, operands) -> jax.Array:
    """A look-up that decodes only the rows it needs.

    `table` is the stored weight ``[rows, n]`` in the view.
    """
    shape, sizes = eqn.invars[0].aval.shape, eqn.params["slice_sizes"]
    indexed = [i for i, s in enumerate(sizes) if s != shape[i]]
    order = (*indexed, *(i for i in range(len(shape)) if i not in indexed))
    back = [shape[i] for i in order]
    whole = table.reshape(back)
    whole = None if whole is None else whole.transpose(_inverse(order))
    if whole is None:
        whole = lax.transpose(table.decode().reshape(back), _inverse(order))
    else:
        rows = indexing.take(eqn, whole, operands[1:])
        if rows is not None:
            return rows.decode() if isinstance(rows, base.StoredWeight) else rows
        whole = whole.decode()
    return compat.bind(eqn, [whole, *operands[1:]])[0]


def _inverse(permutation: Sequence[int]) -> tuple[int, ...]:
    inverse = [0] * len(permutation)
    for i, p in enumerate(permutation):
        inverse[p] = i
    return tuple(inverse)
