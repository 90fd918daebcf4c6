"""A run of equal blocks: one template program, and the weights of each block."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jeff import base
from jeff.program import evaluation, trace, walk
from jeff.program import piece as piece_lib

__all__ = ["LeafRef", "Stack"]


class LeafRef(NamedTuple):
    """Where a block's weight is kept.

    Attributes:
      name: Path of the leaf.
      index: Entry of the stacked leaf, or ``None`` if the leaf is the block's own.
      axis: Stack axis of the leaf, or ``None``.

    Examples:
      >>> from jeff.program.blocks import blocks
      >>> def model(p, x):
      ...     return jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, p["w"])[0]
      >>> (stack,) = blocks(model, {"w": jnp.ones((3, 4, 4))}, jnp.ones((2, 4)))
      >>> stack.leaves[2]["w"]
      LeafRef(name='w', index=2, axis=0)
    """

    name: str
    index: int | None
    axis: int | None


@dataclasses.dataclass(frozen=True, eq=False)
class Stack:
    """A run of equal blocks: one template, and the weights of each block.

    The template is a pure function ``state -> state`` over the weights of one block
    (`piece`), so work on every block shares one compiled program.

    Attributes:
      piece: The template, from the state before a block to the state after it.
      count: Number of blocks.
      leaves: Per block, where each of the template's weights is kept.
      sites: Names of the template's sites, in program order.
      per_block_side: Which side inputs differ from block to block.
      names: Per block, the site that corresponds to each of the template's.
      iterations: Per block, its entry of the scan's stack (a reversed scan starts with
        the last); ``None`` in straight-line code.

    Examples:
      >>> from jeff.program.blocks import blocks
      >>> def model(p, x):
      ...     return jnp.cos(jnp.cos(x @ p["a"]) @ p["b"])
      >>> params, x = {"a": jnp.eye(2), "b": 0 * jnp.eye(2)}, jnp.ones((1, 2))
      >>> (stack,) = blocks(model, params, x)
      >>> state, sides = stack.enter(params, x)
      >>> for i in range(stack.count):
      ...     weights, side = stack.weights(params, i), stack.side(sides, i)
      ...     state = stack.run(weights, state, side)
      >>> print(state[0])
      [[1. 1.]]
    """

    piece: piece_lib.Piece
    count: int
    leaves: tuple[Mapping[str, LeafRef], ...]
    sites: tuple[str, ...]
    per_block_side: tuple[bool, ...]
    names: tuple[Mapping[str, str], ...]
    iterations: tuple[int | None, ...]
    _entry: tuple[walk.Value, ...]
    _sides: tuple[tuple[walk.Value, ...], ...]

    def weights(self, params: Any, block: int) -> dict[str, Any]:
        """The weights of one block, by the template's names.

        Args:
          params: Params tree; leaves may be stored.
          block: Number of the block.

        Returns:
          A value per weight of the template.

        Raises:
          ValueError: If there is no such block.
        """
        self._check(block)
        leaves = trace.check_params(self.piece.found.traced, params)
        entries = {}
        for name, ref in self.leaves[block].items():
            entry = _entry(leaves[ref.name], ref)
            dtype = self.piece.weights[name].aval.dtype
            entries[name] = entry if entry.dtype == dtype else _cast(entry, dtype)
        return entries

    def enter(
        self, params: Any, *inputs: Any, **kwargs: Any
    ) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Runs the program up to the first block.

        Args:
          params: Params tree; leaves may be stored.
          *inputs: Inputs of the program.
          **kwargs: Keyword inputs.

        Returns:
          ``(state, sides)``: the state before the first block, and the side inputs;
          those that differ from block to block have a leading axis of `count`.

        Raises:
          ValueError: If `params` has not the leaves the program was traced with.
        """
        found = self.piece.found
        trace.check_params(found.traced, params)
        values = trace.program_inputs(params, inputs, kwargs)
        own = self.per_block_side
        # Straight-line code makes a value per block; a scan has them stacked already.
        stacked = self.iterations[0] is None
        columns = [
            [row[i] for row in self._sides]
            if own[i] and stacked
            else [self._sides[0][i]]
            for i in range(len(own))
        ]
        wanted = [*self._entry, *(v for column in columns for v in column)]
        got = evaluation.capture(found, found.program.frame, wanted, values)
        state, got = tuple(got[: len(self._entry)]), got[len(self._entry) :]
        sides = []
        for i, column in enumerate(columns):
            values, got = got[: len(column)], got[len(column) :]
            sides.append(jnp.stack(values) if own[i] and stacked else values[0])
        return state, tuple(sides)

    def side(self, sides: Sequence[Any], block: int) -> tuple[Any, ...]:
        """The side inputs of one block.

        Args:
          sides: The side inputs that `enter` returned.
          block: Number of the block.

        Returns:
          A value per side input.

        Raises:
          ValueError: If there is no such block.
        """
        self._check(block)
        iteration = self.iterations[block]
        i = block if iteration is None else iteration
        return tuple(
            s[i] if own else s
            for s, own in zip(sides, self.per_block_side, strict=True)
        )

    def run(
        self, weights: Mapping[str, Any], state: Sequence[Any], side: Sequence[Any]
    ) -> tuple[Any, ...]:
        """Runs one block.

        Args:
          weights: From `weights`, or changed ones of the same shapes.
          state: From `enter`, or from the block before.
          side: From `side`.

        Returns:
          The next state.

        Raises:
          ValueError: If a weight is missing or a value has another shape.
        """
        return self.piece(weights, state, side)

    def _check(self, block: int) -> None:
        if not 0 <= block < self.count:
            raise ValueError(f"block must be in [0, {self.count}), got {block}")


def _entry(leaf: Any, ref: LeafRef) -> Any:
    index, axis = ref.index, ref.axis
    if index is None or axis is None:
        return leaf
    if base.is_stored(leaf) and not leaf.can_index(axis):
        leaf = leaf.decode()
    return jax.tree.map(
        lambda a: jax.lax.index_in_dim(a, index, axis, keepdims=False), leaf
    )


def _cast(w: Any, dtype: Any) -> Any:
    """The weight as the block takes it; a stored one decodes if it must."""
    cast = w.astype(dtype)
    return w.decode().astype(dtype) if cast is None else cast
