"""The blocks that are done: packed weights, and what scales were folded into.

Leaves of scanned layers arrive entry by entry and are stacked at the end, one after
another.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jeff import base, tree
from jeff.mbq.job import Job
from jeff.mbq.rounding import Rounded, round_entry, stack_entries
from jeff.mbq.search import StackSearch

__all__ = ["Done"]


class Done:
    """Collects what the blocks become.

    Examples:
      >>> from jeff.mbq import BalanceConfig, Batch, job
      >>> from jeff.quantize import QuantConfig
      >>> apply, params = lambda p, x: x @ p["w"], {"w": jnp.ones((32, 8))}
      >>> config = BalanceConfig(weights=QuantConfig(bits=3, group_size=32))
      >>> started = job.start(
      ...     apply, params, [Batch((jnp.ones((1, 32)),))], config, None, None
      ... )
      >>> ((stack, groups),) = started.stacks
      >>> done = Done(started)
      >>> done.add(StackSearch.of(stack, groups), 0, params)
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
        self._dense, _ = tree.flatten(job.params)
        self._rounded: dict[str, dict[int, Rounded]] = {}  # by leaf, then by entry
        self._folded: dict[str, dict[int, jax.Array]] = {}
        self._axis: dict[str, int | None] = {}

    def add(
        self,
        search: StackSearch,
        block: int,
        weights: Mapping[str, jax.Array],
        rounded: Mapping[str, Rounded] | None = None,
    ) -> None:
        """Rounds a block; dense weights are kept only if a scale may be in them.

        Args:
          search: The stack of the block.
          block: Its number.
          weights: Its dense weights with the scales folded in.
          rounded: Those that are rounded already, by the same names.

        Raises:
          ValueError: If a scale overflows its dtype; the leaf is named.
        """
        rounded = rounded or {}
        scaled = {n for g in search.groups for n in (*g.fold, *g.targets)}
        for name, ref in search.stack.leaves[block].items():
            if base.is_stored(self._dense[ref.name]):
                continue
            self._axis[ref.name] = None if ref.index is None else ref.axis or 0
            part, entry = self._job.leaves.get(ref.name), ref.index or 0
            if part is not None:
                entries = self._rounded.setdefault(ref.name, {})
                if entry not in entries:  # one leaf may serve several blocks
                    entries[entry] = rounded.get(name) or round_entry(
                        weights[name], part, ref.axis, self._job.config.weights
                    )
            elif name in scaled:
                self._folded.setdefault(ref.name, {})[entry] = weights[name]

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
