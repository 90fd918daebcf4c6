"""Stuck bits of stored words (hard errors of weight or feature memory).

Every stored bit is stuck with a probability, at one rate or at one per bit position; a
stuck bit reads 1 with a given share, else 0, whatever is written. Unlike a flip it
changes about half of the bits it hits, and hitting twice is hitting once::

    x' = (x & ~stuck) | (value & stuck)        stuck ~ Bernoulli(rate)
                                               value ~ Bernoulli(one_share)

References:
  FTT-NAS, arXiv 2003.10375, section on weight faults (cells of a resistive crossbar:
  `adsaf_cells`); here the bits of any stored word.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jeff import base
from jeff.faults import gradients, rates, stored_words, words
from jeff.faults.bit_flip import checked_rates, used_bits
from jeff.faults.model import fault_model

__all__ = ["StuckAt", "stuck_at"]


class StuckAt(NamedTuple):
    """Sampled stuck bits.

    Attributes:
      stuck: uint8, uint16 or uint32 of the array's shape: bits that are stuck.
      value: The same shape and dtype: what those bits read, 0 elsewhere.
      overflow: bool ``[]``: the sampler's buffer was too short, faults are missing.
    """

    stuck: jax.Array
    value: jax.Array
    overflow: jax.Array


def stuck_at(
    rate: Any,
    *,
    one_share: float = 0.5,
    bits: int | None = None,
    nonfinite: str = "keep",
    gradient: str = "masked",
    method: str | None = None,
    max_rate: float | None = None,
) -> base.FaultModel:
    """Independent stuck bits of a stored word.

    Args:
      rate: Probability in [0, 1] that a bit is stuck, or one per bit, lowest first; may
        be traced.
      one_share: Probability in [0, 1] that a stuck bit reads 1: 0 for stuck-at-0 faults
        only, 1 for stuck-at-1 only.
      bits: How many low bits of a word are really stored, see `bit_flip`.
      nonfinite: What becomes of NaN and infinities so made, see `stored_words.guard`.
      gradient: One of `gradients.GRADIENTS`, for floating arrays; ``"masked"`` detaches
        elements whose stored bits change.
      method: Sampler, see `words.bit_words`.
      max_rate: Largest rate of a sweep, see `words.bit_words`.

    Returns:
      A `FaultModel` whose ``sample(key, like)`` gives `StuckAt`.

    Raises:
      TypeError: If a rate is no real number; at sampling, if the dtype has no words.
      ValueError: If an argument is out of its range; at sampling, if the method
        cannot reach a rate, or `bits` exceeds the dtype.

    Examples:
      >>> model, codes = stuck_at(0.01), jnp.array([0, 5, 4], jnp.uint8)
      >>> stuck = jnp.array([3, 3, 0], jnp.uint8)
      >>> faults = StuckAt(stuck=stuck, value=stuck & 1, overflow=jnp.array(False))
      >>> print(model.inject(faults, codes))
      [1 5 4]
    """
    rates.check_choice("nonfinite", nonfinite, stored_words.NONFINITE)
    rates.check_choice("gradient", gradient, gradients.GRADIENTS)
    rates.checked_rate("one_share", one_share)
    rate = checked_rates(rate, bits)

    def sample_each(keys, likes):
        drawn = words.bit_words_each(
            keys,
            rate,
            [like.shape for like in likes],
            bits=[used_bits(like, bits) for like in likes],
            one_share=one_share,
            method=method,
            max_rate=max_rate,
        )
        return [StuckAt(d.word, jnp.asarray(d.ones), d.overflow) for d in drawn]

    def inject(faults, x):
        def stored(clean):
            stuck, value = (f.astype(clean.dtype) for f in (faults.stuck, faults.value))
            return (clean & ~stuck) | (value & stuck)

        faulty = stored_words.change(x, stored)
        if not rates.is_floating(x):
            return faulty
        hit = stored_words.differ(faulty, x)
        faulty = stored_words.guard(faulty, x, hit, nonfinite)
        return gradients.straight_through(faulty, x, gradients.passing(hit, gradient))

    return fault_model(sample_each, inject)
