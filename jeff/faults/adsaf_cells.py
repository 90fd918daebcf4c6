"""adSAF with cells of a few bits: stuck cells that hold a part of a magnitude.

Integers ``trunc(w / step)`` of Q - 1 magnitude bits (`fixed_point`) are cut into
``ceil((Q-1) / b)`` cells of b bits per polarity, lowest bits first (b = 1 is the
SB-cell). A stuck cell reads 0 (SAF0) or all ones (SAF1), and
``w' = (pos' - neg') * step``. Infinities and NaN, which have no code, pass unchanged.

References:
  FTT-NAS, arXiv 2003.10375, section on weight faults.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jeff import base
from jeff.faults import fixed_point, gradients, masks, rates
from jeff.faults.bit_flip import used_bits
from jeff.faults.cell_kinds import SAF1, SAF1_SHARE, CellKinds
from jeff.faults.method import checked
from jeff.faults.model import fault_model

__all__ = ["StuckBits", "adsaf_cells"]

_QUIRKS_RATE, _QUIRKS_SHARE = 0.1, 0.16  # written into the original program


class StuckBits(NamedTuple):
    """Sampled faults of cells of a few bits.

    Attributes:
      stuck: uint8 or uint16 ``[2, *shape]``: bits of faulty cells; first the positive
        array, then the negative one.
      value: The same shape and dtype: what those bits read, 0 elsewhere.
      overflow: bool ``[]``: the sampler's buffer was too short, faults are missing.
    """

    stuck: jax.Array
    value: jax.Array
    overflow: jax.Array


def adsaf_cells(
    rate: Any,
    *,
    bits: int = 8,
    cell_bits: int = 1,
    saf1_share: float = SAF1_SHARE,
    gradient: str = "masked",
    reference_quirks: bool = False,
    method: str | None = None,
    max_rate: float | None = None,
) -> base.FaultModel:
    """Stuck-at faults of cells that hold a few bits of a magnitude each.

    Args:
      rate: Probability in [0, 1] that a cell is faulty; may be traced.
      bits: Q, 2 to 16: sign and Q - 1 magnitude bits; of integers, at most those of
        their dtype.
      cell_bits: Bits per cell, 1 (SB-cell) to Q - 1 (one cell per magnitude); the
        topmost cell holds what is left.
      saf1_share: Share of faulty cells that read all ones, in [0, 1].
      gradient: One of `gradients.GRADIENTS`; ``"masked"`` detaches weights whose
        stored bits change.
      reference_quirks: As the original program does: `rate` only switches faults of
        single-bit cells on, whose rate is 0.1 for every ``rate > 0`` and whose
        `saf1_share` 0.16; weights are made from integers, so no gradient passes.
        `cell_bits` and `saf1_share` must be the defaults.
      method: Sampler, see `masks.mask`.
      max_rate: Largest rate of a sweep, see `masks.mask`.

    Returns:
      A `FaultModel` whose ``sample(key, like)`` gives `StuckBits`. Its `inject` cuts
      the whole weight to fixed point, towards 0; a magnitude of ``2^(Q-1)`` steps
      (a largest weight that is a power of two) saturates at ``2^(Q-1) - 1``. Signed
      integers are the codes themselves, of which larger magnitudes saturate too.

    Raises:
      TypeError: If a rate is no real number; at use, if the array is neither floating
        nor of signed integers (codes with a zero point have no polarity: decode them).
      ValueError: If an argument is out of its range; at use, if integers have fewer
        than `bits` bits.

    Examples:
      >>> model, w = adsaf_cells(0.01, bits=4), jnp.array([0.9, -0.3])
      >>> none = jnp.zeros((2, 2), jnp.uint8)
      >>> faults = StuckBits(none.at[0, 0].set(4), none, jnp.array(False))
      >>> print(jax.jit(model.inject)(faults, w))  # 7 and -2 steps; a bit of 4 is lost
      [ 0.375 -0.25 ]
    """
    rate = rates.checked_rate("rate", rate)
    share = float(rates.checked_rate("saf1_share", saf1_share))
    fixed_point.check_bits(bits)
    rates.check_choice("gradient", gradient, gradients.GRADIENTS)
    fixed_point.check_bits(cell_bits, 1, bits - 1, name="cell_bits")
    if reference_quirks:
        rate, max_rate = _switched(checked(rate, max_rate), cell_bits, share)
        share = _QUIRKS_SHARE
    top = 2 ** (bits - 1) - 1
    dtype = jnp.dtype(jnp.uint8 if bits <= 9 else jnp.uint16)
    ones = [
        (2**cell_bits - 1) << low & top for low in range(0, bits - 1, cell_bits)
    ]  # the bits of each cell

    def check(name, x):
        rates.check_signed(name, x)
        if not rates.is_floating(x):
            used_bits(x, bits)  # they must all be there

    def sample_each(keys, likes):
        for like in likes:
            check("like", like)
        shapes = [(len(ones), 2, *like.shape) for like in likes]
        drawn = masks.marked_each(
            keys, rate, shapes, CellKinds(share), method=method, max_rate=max_rate
        )
        return [joined(mask.overflow, kind) for mask, kind in drawn]

    def joined(overflow, kind):
        cells = jnp.asarray(ones, dtype).reshape(-1, *[1] * (kind.ndim - 1))
        none = jnp.zeros((), dtype)
        return StuckBits(
            stuck=jnp.sum(jnp.where(kind > 0, cells, none), axis=0, dtype=dtype),
            value=jnp.sum(jnp.where(kind == SAF1, cells, none), axis=0, dtype=dtype),
            overflow=overflow,
        )

    def inject(faults, w):
        check("w", w)
        if rates.is_floating(w):
            step = fixed_point.fixed_point_format(w, bits=bits).step
            code = jnp.trunc(w.astype(jnp.float32) / step).astype(jnp.int32)
        else:
            step, code = None, w.astype(jnp.int32)
        code = jnp.clip(code, -top, top)
        clean = jnp.stack([jnp.maximum(code, 0), jnp.maximum(-code, 0)]).astype(dtype)
        stored = (faults.value & faults.stuck) | (clean & ~faults.stuck)
        pair = stored.astype(jnp.int32)
        if step is None:
            return (pair[0] - pair[1]).astype(w.dtype)
        finite = jnp.isfinite(w)
        value = ((pair[0] - pair[1]).astype(jnp.float32) * step).astype(w.dtype)
        value = jnp.where(finite, value, w)
        hit = jnp.any(stored != clean, axis=0) & finite
        passes = gradients.passing(hit, gradient)
        if reference_quirks:
            passes = jnp.zeros_like(hit)
        return gradients.straight_through(value, w, passes)

    return fault_model(sample_each, inject)


def _switched(rate, cell_bits, share):
    """Rate and bound of the original program: 0 or its own."""
    if cell_bits != 1:
        raise ValueError(f"cell_bits must be 1 with reference_quirks, got {cell_bits}")
    if share != np.float32(SAF1_SHARE):
        raise ValueError(
            f"saf1_share must be {SAF1_SHARE} with reference_quirks, got {share:.6g}"
        )
    own = np.float32(_QUIRKS_RATE)
    if rates.is_known(rate.value):
        return np.where(rate.value > 0, own, rate.value), _QUIRKS_RATE
    # What is no rate, or beyond the bound, stays so, and sets the overflow.
    beyond = rate.value > np.float32(1.0 if rate.top is None else rate.top)
    value = jnp.where(beyond, np.float32(2.0), own)
    return jnp.where(rate.value > 0, value, rate.value), _QUIRKS_RATE
