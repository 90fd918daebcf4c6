"""Flips of one bit of features kept in fixed point (soft errors of feature memory).

An element is hit with a probability p. One of the Q bits of its two's complement code
(`jeff.faults.fixed_point`), each as likely as the others, is flipped::

    code = round(x / step)       x' = step * (code XOR 2^e)       e ~ Uniform{0 .. Q-1}

References:
  FTT-NAS, arXiv 2003.10375: the bit-flip mode of its program's fault injector.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jeff import base
from jeff.faults import fixed_point, gradients, masks, rates
from jeff.faults.model import fault_model
from pallas_kernels.threefry import unrolled

__all__ = ["FixedPointFlips", "fixed_point_flip"]


class FixedPointFlips(NamedTuple):
    """Sampled flips.

    Attributes:
      word: uint8, or uint16 of codes of more than 8 bits, of the array's shape: the bit
        to flip in the code, or 0.
      overflow: bool ``[]``: the sampler's buffer was too short, flips are missing.
    """

    word: jax.Array
    overflow: jax.Array


def fixed_point_flip(
    rate: Any,
    *,
    bits: int = 8,
    gradient: str = "masked",
    reference_quirks: bool = False,
    method: str | None = None,
    max_rate: float | None = None,
) -> base.FaultModel:
    """Flips one bit of hit elements in the fixed-point format of the whole array.

    Args:
      rate: Probability in [0, 1] that an element is hit; may be traced.
      bits: Q, width of the fixed-point format, 2 to 16.
      gradient: One of `gradients.GRADIENTS`; either stops where a code has saturated.
      reference_quirks: As the original program does: the array is rounded with the code
        ``+2^(Q-1)`` allowed, and bits 0 to Q-1 are flipped in codes of *half* a step,
        so that the sign never flips and the largest change is ``2^k / 2``; the rate is
        ``1 / int(1 / rate)`` and must be known.
      method: Sampler, see `masks.mask`.
      max_rate: Largest rate of a sweep, see `masks.mask`.

    Returns:
      A `FaultModel` whose ``sample(key, like)`` gives `FixedPointFlips`. Its `inject`
      rounds the whole array to fixed point; at rate 0 that is all it does. Infinities
      and NaN pass unchanged.

    Raises:
      TypeError: If `rate` is no real number; at use, if the array is not floating.
      ValueError: If an argument is out of its range.

    Examples:
      >>> model, y = fixed_point_flip(1.0, bits=4), jnp.array([0.5, -1.0])
      >>> faults = FixedPointFlips(jnp.array([1, 8]), jnp.array(False))
      >>> print(jax.jit(model.inject)(faults, y))
      [0.625 0.   ]
    """
    rate = rates.checked_rate("rate", rate)
    rates.check_choice("gradient", gradient, gradients.GRADIENTS)
    fixed_point.check_bits(bits)
    if reference_quirks:
        rate = rates.whole_inverse(rate)
        max_rate = None if max_rate is None else float(rates.whole_inverse(max_rate))
    finer = 1 if reference_quirks else 0  # halvings of the step
    saturate = "paper" if reference_quirks else "twos_complement"

    def sample_each(keys, likes):
        for like in likes:
            rates.check_floating("like", like)
        shapes = [like.shape for like in likes]
        drawn = masks.marked_each(
            keys, rate, shapes, _OneBit(bits), method=method, max_rate=max_rate
        )
        return [FixedPointFlips(word, mask.overflow) for mask, word in drawn]

    def inject(faults, x):
        rates.check_floating("x", x)
        clean = fixed_point.to_fixed_point(x, bits=bits, saturate=saturate)
        step = fixed_point.fixed_point_format(x, bits=bits + finer).step
        code = (clean.astype(jnp.float32) / step).astype(jnp.int32)
        code = code ^ faults.word.astype(jnp.int32)
        if not reference_quirks:  # the topmost bit is the sign
            code = ((code + 2 ** (bits - 1)) & (2**bits - 1)) - 2 ** (bits - 1)
        hit = (faults.word != 0) & jnp.isfinite(x)
        value = (code.astype(jnp.float32) * step).astype(x.dtype)
        passes = gradients.passing(hit, gradient)
        faulty = gradients.straight_through(value, clean, passes)
        return jnp.where(hit, faulty, clean)

    return fault_model(sample_each, inject)


@dataclasses.dataclass(frozen=True)
class _OneBit:
    """Draws words with one bit set; equal widths share compiled programs."""

    bits: int

    def __call__(self, key, shape):
        word = jax.random.bits(unrolled(key), shape, jnp.uint32)
        place = word % jnp.uint32(self.bits)
        narrow = jnp.uint8 if self.bits <= 8 else jnp.uint16
        return (jnp.uint32(1) << place).astype(narrow)
