"""What one block has become: the record that is put together, kept and resumed from."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from jeff.mbq.report import ClipReport, GroupReport
from jeff.mbq.rounding.entries import Rounded

__all__ = ["FinishedBlock"]


class FinishedBlock(NamedTuple):
    """A block that is done. Weights are named as in the template block.

    Attributes:
      rounded: Its quantized weights.
      folded: Dense weights that scales were folded into.
      groups: What was decided for its groups.
      clips: What was decided for its clipped weights.
      notes: Further lines for the report.

    Examples:
      >>> block = FinishedBlock({}, {"norm": jax.numpy.ones(2)}, (), (), ())
      >>> block.weights({"norm": None, "bias": 1.0})
      {'norm': Array([1., 1.], dtype=float32), 'bias': 1.0}
    """

    rounded: Mapping[str, Rounded]
    folded: Mapping[str, jax.Array]
    groups: tuple[GroupReport, ...]
    clips: tuple[ClipReport, ...]
    notes: tuple[str, ...]

    def weights(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The weights of the block as it will run.

        Args:
          given: Its weights before.

        Returns:
          The same names; stored where they were quantized.
        """
        stored = {n: r.weight for n, r in self.rounded.items()}
        return {**given, **self.folded, **stored}
