"""The blocks that are done: packed weights, and what scales were folded into.

Leaves of scanned layers arrive entry by entry and are stacked at the end, one after
another.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jeff.mbq.blocks.finished import FinishedBlock
from jeff.mbq.call.job import Job
from jeff.mbq.rounding.entries import Rounded, stack_entries
from jeff.program.blocks import Stack

__all__ = ["Done"]


class Done:
    """Collects what the blocks become.

    Examples:
      >>> from jeff.mbq import BalanceConfig, Batch
      >>> from jeff.mbq.call import job
      >>> from jeff.mbq.rounding.entries import round_leaf
      >>> from jeff.quantize import QuantConfig
      >>> apply, params = lambda p, x: x @ p["w"], {"w": jnp.ones((32, 8))}
      >>> config = BalanceConfig(weights=QuantConfig(bits=3, group_size=32))
      >>> started = job.start(
      ...     apply, params, [Batch((jnp.ones((1, 32)),))], config, None, None
      ... )
      >>> ((stack, _),) = started.stacks
      >>> done = Done(started)
      >>> rounded = {"w": round_leaf(params["w"], started.leaves["w"], config.weights)}
      >>> done.add(stack, 0, FinishedBlock(rounded, {}, (), (), ()))
      >>> done.leaves()
      ({}, {'w': Rounded(weight=QTensor(float32[32, 8], 3 bits, scales float32[1, 8]),
                         clipped=8)})
    """

    def __init__(self, job: Job):
        """Starts with no block.

        Args:
          job: The call: which leaves are quantized, and how.
        """
        self._job = job
        self._rounded: dict[str, dict[int, Rounded]] = {}  # by leaf, then by entry
        self._folded: dict[str, dict[int, jax.Array]] = {}
        self._axis: dict[str, int | None] = {}

    def add(self, stack: Stack, block: int, finished: FinishedBlock) -> None:
        """Takes a block; of a leaf that serves several blocks the first one counts.

        Args:
          stack: The stack of the block.
          block: Its number.
          finished: What it has become.
        """
        self._keep(self._rounded, finished.rounded, stack, block)
        self._keep(self._folded, finished.folded, stack, block)

    def _keep(
        self,
        kept: dict[str, Any],
        weights: Mapping[str, Any],
        stack: Stack,
        block: int,
    ) -> None:
        for name, weight in weights.items():
            ref = stack.leaves[block][name]
            self._axis[ref.name] = None if ref.index is None else ref.axis or 0
            kept.setdefault(ref.name, {}).setdefault(ref.index or 0, weight)

    def leaves(self) -> tuple[dict[str, jax.Array], dict[str, Rounded]]:
        """The leaves of all blocks; to be called once, as entries are given up.

        Returns:
          ``(folded, rounded)``: dense leaves with scales in them, and rounded leaves.
        """
        folded, rounded = {}, {}
        for name in list(self._folded):
            entries, axis = _ordered(self._folded.pop(name)), self._axis[name]
            folded[name] = entries[0] if axis is None else jnp.stack(entries, axis)
        for name in list(self._rounded):
            entries, axis = _ordered(self._rounded.pop(name)), self._axis[name]
            part = self._job.leaves[name]
            rounded[name] = (
                entries[0] if axis is None else stack_entries(entries, part, axis)
            )
        return folded, rounded


def _ordered(entries: Mapping[int, Any]) -> list[Any]:
    return [entries[i] for i in sorted(entries)]
