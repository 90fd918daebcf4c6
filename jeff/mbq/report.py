"""What a quantization method returns: parameters, rules to run them, a report."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jeff import base

__all__ = ["ClipReport", "GroupReport", "Quantized", "Report", "Sensitivities"]

Sensitivities = Mapping[str, Mapping[str, np.ndarray]]
"""Per site of the first block and modality, float ``[blocks]``."""


class GroupReport(NamedTuple):
    """What was decided for one group of one block.

    Attributes:
      block: Number of the block within its stack.
      sites: The linears, by their names in that block.
      inspect: The site whose output was compared.
      fold: Leaves the scale was folded into; empty if it was not.
      exponent: The exponent chosen, NaN where none was searched.
      ratios: Weight of each modality's tokens in the loss; empty if not balanced.
      losses: ``[grid]``, loss of every candidate; empty if not searched.
      scale: ``[K]``, the scale that was folded in; ones if none was.
      change: Relative change of the block's output by this fold and those before it,
        from rounding alone: a fold that is wrong is left out.
      note: Why there is no fold, if there is none.

    Examples:
      >>> from jeff.mbq import GroupReport
      >>> one = np.ones(4, np.float32)
      >>> group = GroupReport(0, ("up",), "up", ("norm",), 0.25, {}, one, one, 0.0, "")
      >>> f"{group.sites[0]} into {group.fold[0]}, exponent {group.exponent}"
      'up into norm, exponent 0.25'
    """

    block: int
    sites: tuple[str, ...]
    inspect: str
    fold: tuple[str, ...]
    exponent: float
    ratios: Mapping[str, float]
    losses: np.ndarray
    scale: np.ndarray
    change: float
    note: str


class ClipReport(NamedTuple):
    """What the clipping search decided for one weight of one block.

    Attributes:
      block: Number of the block within its stack.
      leaf: The weight, by its path in the params.
      steps: uint8 ``[*stack, groups, N]``: how many 20ths of its largest absolute value
        were cut off each group of input channels of each output channel (of the weight
        that the scales are folded into).
      before: Squared error of the groups' partial products without clipping, the mean
        over groups, outputs and tokens as they weigh.
      after: The same with the limits found.

    Examples:
      >>> from jeff.mbq import ClipReport
      >>> clip = ClipReport(0, "up", np.array([[0, 3], [1, 0]], np.uint8), 0.5, 0.4)
      >>> clip.clipped
      0.5
    """

    block: int
    leaf: str
    steps: np.ndarray
    before: float
    after: float

    @property
    def clipped(self) -> float:
        """Fraction of the groups that are clipped at all."""
        return float(np.mean(self.steps > 0))


class Report(NamedTuple):
    """What a method did.

    Attributes:
      groups: One entry per group and block, in the order of the search.
      sensitivities: Per inspected site (of the first block) and modality,
        ``[blocks]``; empty unless the method weighs modalities.
      notes: Lines a user should read: groups left unscaled, weights left dense,
        groups of weights that the quantizer clips.
      dense_bytes: Bytes of the quantized weights at 16 bits each.
      stored_bytes: Bytes they really take now: codes, padding, scales, zero points.
      clips: One entry per clipped weight and block; empty if nothing was clipped.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jeff import mbq
      >>> from jeff.quantize import QuantConfig
      >>> config = mbq.BalanceConfig(weights=QuantConfig(bits=4, group_size=32))
      >>> batches = [mbq.Batch((jnp.ones((1, 64)),))]
      >>> q = mbq.rtn(lambda p, x: x @ p["w"], {"w": jnp.eye(64)}, batches, config)
      >>> q.report.dense_bytes, q.report.stored_bytes  # 4 + (32 + 8) / 32 bits
      (8192, 2688)
      >>> q.report.notes
      ()
    """

    groups: tuple[GroupReport, ...]
    sensitivities: Mapping[str, Mapping[str, np.ndarray]]
    notes: tuple[str, ...]
    dense_bytes: int
    stored_bytes: int
    clips: tuple[ClipReport, ...] = ()


class Quantized(NamedTuple):
    """Quantized parameters and how to run them.

    Attributes:
      params: The params tree with `QTensor` leaves.
      rules: Rules for `jeff.rewrite` (activation quantization; else empty).
      report: What was done.

    Examples:
      >>> import jax.numpy as jnp
      >>> import jeff
      >>> from jeff import mbq
      >>> from jeff.quantize import QuantConfig
      >>> apply, params = lambda p, x: x @ p["w"], {"w": jnp.eye(32)}
      >>> config = mbq.BalanceConfig(weights=QuantConfig(bits=4, group_size=32))
      >>> q = mbq.rtn(apply, params, [mbq.Batch((jnp.ones((1, 32)),))], config)
      >>> run = jeff.rewrite(apply, *q.rules)
      >>> run(q.params, jnp.ones((1, 32))).shape, q.params["w"]
      ((1, 32), QTensor(float32[32, 32], 4 bits, scales float32[1, 32]))
    """

    params: Any
    rules: tuple[base.Rule, ...]
    report: Report
