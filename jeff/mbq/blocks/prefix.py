"""What enters the current block: from the clean program, from the quantized one."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jeff.mbq.blocks.run import BlockRun
from jeff.mbq.calibration.batches import Batch
from jeff.program.blocks import Stack

__all__ = ["Entering", "Prefix"]

State = tuple[Any, ...]


class Entering(NamedTuple):
    """What enters a block with one batch.

    Attributes:
      clean: The state that the full-precision blocks before it give.
      quantized: The state that the quantized ones give. Where a `Prefix` keeps only
        one of the two kinds, both fields hold it.
      side: The block's side inputs.
      batch: The batch without its inputs, which no block needs any more.
    """

    clean: State
    quantized: State
    side: tuple[Any, ...]
    batch: Batch


class Prefix:
    """The states of all batches before a block, moved on from block to block.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jeff import program
      >>> def apply(p, x):
      ...     return jnp.cos(jnp.cos(x @ p["a"]) @ p["b"])
      >>> params, x = {"a": jnp.eye(2), "b": jnp.eye(2)}, jnp.zeros((1, 2))
      >>> (stack,) = program.blocks(apply, params, x)
      >>> kept = {"clean": True, "quantized": True, "activation_bits": None}
      >>> prefix = Prefix(stack, params, [Batch((x,))], **kept)
      >>> prefix.move(stack.weights(params, 0), {"a": 2 * jnp.eye(2)})
      >>> (first,) = prefix.at(1)
      >>> print(first.clean[0], first.quantized[0])
      [[1. 1.]] [[1. 1.]]
    """

    def __init__(
        self,
        stack: Stack,
        params: Any,
        batches: Sequence[Batch],
        *,
        clean: bool,
        quantized: bool,
        activation_bits: int | None,
    ):
        """Runs the program up to the first block, at full precision.

        Args:
          stack: The stack.
          params: Parameters.
          batches: Calibration data.
          clean: Whether states of the full-precision program are kept.
          quantized: Whether states of the quantized one are.
          activation_bits: Width of the activations in the quantized one, if any.
        """
        self._stack, self._bits = stack, activation_bits
        self._runs = BlockRun.of(stack)
        self._batches, entered = [], []
        for batch in batches:
            self._batches.append(batch._replace(inputs=()))
            entered.append(self._runs.enter(params, *batch.inputs))
        self._sides = [side for _, side in entered]
        states = [state for state, _ in entered]
        self._block = 0
        self._clean = states if clean else None
        self._quantized = states if quantized else None  # one list while they are equal

    def at(self, block: int) -> list[Entering]:
        """What enters a block, batch by batch.

        Args:
          block: Number of the block, to which states have been moved.

        Returns:
          One entry per batch.
        """
        assert block == self._block
        clean = self._quantized if self._clean is None else self._clean
        quantized = self._clean if self._quantized is None else self._quantized
        assert clean is not None and quantized is not None
        sides = (self._stack.side(side, block) for side in self._sides)
        rows = zip(clean, quantized, sides, self._batches, strict=True)
        return [Entering(*row) for row in rows]

    def move(
        self,
        dense: Mapping[str, Any],
        stored: Mapping[str, Any] | None = None,
    ) -> None:
        """Goes on to the next block, batch by batch: old states go as new ones come.

        Args:
          dense: Weights of the block as they were given.
          stored: The same as they become; ``None`` if nothing of them changes.
        """
        clean, quantized, run = self._clean, self._quantized, self._runs.run
        if quantized is not None and quantized is clean and stored is not None:
            self._quantized = quantized = list(quantized)
        rounded = functools.partial(run, activation_bits=self._bits)
        for i, sides in enumerate(self._sides):
            side = self._stack.side(sides, self._block)
            if quantized is not None and stored is not None:
                quantized[i] = rounded(stored, quantized[i], side)
            elif quantized is not None and quantized is not clean:
                quantized[i] = run(dense, quantized[i], side)
            if clean is not None:
                clean[i] = run(dense, clean[i], side)
        self._block += 1
