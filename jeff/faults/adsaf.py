"""adSAF with one cell for a whole magnitude (MB-cell): stuck weights of a crossbar.

A cell is faulty with probability p. A faulty cell is stuck at high resistance (SAF0, it
reads 0) or, with a share of 16.3 %, at low resistance (SAF1, full scale). A weight is a
differential pair ``w = w_pos - w_neg`` of which one side holds the magnitude. With
``M = max|w|``::

    positive cell    SAF1: w <- clip(w + M, -M, M)     SAF0: if w > 0: w <- 0
    negative cell    SAF1: w <- clip(w - M, -M, M)     SAF0: if w < 0: w <- 0

drawn independently and applied in this order. M is that of the finite weights;
infinities and NaN, of which no cell holds the magnitude, pass unchanged.

References:
  FTT-NAS, arXiv 2003.10375, section on weight faults.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jeff import base
from jeff.faults import gradients, masks, rates
from jeff.faults.cell_kinds import SAF0, SAF1, SAF1_SHARE, CellKinds
from jeff.faults.magnitude import largest_magnitude
from jeff.faults.model import fault_model

__all__ = ["StuckCells", "adsaf"]


class StuckCells(NamedTuple):
    """Sampled faults of whole-magnitude cells.

    Attributes:
      positive: uint8 of the array's shape: 0 healthy, 1 stuck at 0 (SAF0), 2 stuck at
        full scale (SAF1).
      negative: The same for the other polarity.
      overflow: bool ``[]``: the sampler's buffer was too short, faults are missing.
    """

    positive: jax.Array
    negative: jax.Array
    overflow: jax.Array


def adsaf(
    rate: Any,
    *,
    saf1_share: float = SAF1_SHARE,
    gradient: str = "masked",
    reference_quirks: bool = False,
    method: str | None = None,
    max_rate: float | None = None,
) -> base.FaultModel:
    """Stuck-at faults of cells that hold a whole magnitude each.

    About ``rate * (1 + saf1_share)`` of the non-zero weights change: their own cell by
    either fault, the other polarity's by SAF1 only.

    Args:
      rate: Probability in [0, 1] that a cell is faulty; may be traced.
      saf1_share: Share of faulty cells stuck at full scale, in [0, 1].
      gradient: One of `gradients.GRADIENTS`. ``"masked"`` detaches weights on which a
        fault acts (SAF1 of either cell, SAF0 of the cell that holds the magnitude).
      reference_quirks: Rate and share of the original program, which compares integers
        below ``int(100 / rate)`` with 16.3: a share of 0.17 and the rate
        ``100 / int(100 / rate)``. The rate must be known, `saf1_share` the default.
      method: Sampler, see `masks.mask`.
      max_rate: Largest rate of a sweep, see `masks.mask`.

    Returns:
      A `FaultModel` whose ``sample(key, like)`` gives `StuckCells`; `M` is taken from
      the array that is injected, which is one layer's weight (of signed integers: in
      steps; +128 of int8 saturates at 127).

    Raises:
      TypeError: If a rate is no real number; at use, if the array is neither floating
        nor of signed integers (codes with a zero point have no polarity: decode them).
      ValueError: If an argument is out of its range.

    Examples:
      >>> model, w = adsaf(0.08), jnp.array([0.5, -1.0, 0.25])
      >>> faults = StuckCells(
      ...     jnp.array([1, 2, 0], jnp.uint8), jnp.zeros(3, jnp.uint8), jnp.array(False)
      ... )
      >>> print(jax.jit(model.inject)(faults, w))
      [0.   0.   0.25]
    """
    rate = rates.checked_rate("rate", rate)
    rates.check_choice("gradient", gradient, gradients.GRADIENTS)
    share = float(rates.checked_rate("saf1_share", saf1_share))
    if reference_quirks:
        if saf1_share != SAF1_SHARE:
            raise ValueError(
                f"saf1_share must be {SAF1_SHARE} with reference_quirks, "
                f"got {saf1_share}"
            )
        rate, share = rates.whole_inverse(rate, scale=100.0), 0.17
        if max_rate is not None:
            max_rate = float(rates.whole_inverse(max_rate, scale=100.0))

    def sample_each(keys, likes):
        for like in likes:
            rates.check_signed("like", like)
        shapes = [(2, *like.shape) for like in likes]
        drawn = masks.marked_each(
            keys, rate, shapes, CellKinds(share), method=method, max_rate=max_rate
        )
        return [StuckCells(kind[0], kind[1], mask.overflow) for mask, kind in drawn]

    def inject(faults, w):
        rates.check_signed("w", w)
        wide = w if rates.is_floating(w) else w.astype(jnp.int32)
        largest = largest_magnitude(wide)
        value, acts, finite = wide, jnp.zeros(w.shape, bool), jnp.isfinite(wide)
        for cell, polarity in ((faults.positive, 1), (faults.negative, -1)):
            holds = value * polarity > 0
            high, low = (cell == SAF1) & finite, (cell == SAF0) & finite & holds
            raised = jnp.clip(value + polarity * largest, -largest, largest)
            value = jnp.where(high, raised, jnp.where(low, jnp.zeros_like(wide), value))
            acts = acts | high | low
        if not rates.is_floating(w):
            return jnp.minimum(value, jnp.iinfo(w.dtype).max).astype(w.dtype)
        return gradients.straight_through(value, w, gradients.passing(acts, gradient))

    return fault_model(sample_each, inject)
