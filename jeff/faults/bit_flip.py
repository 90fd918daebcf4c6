"""Independent bit flips of stored words (soft errors of weight or feature memory).

Every stored bit is XORed with a Bernoulli variable, at one rate or at one per bit
position (protected or voltage-scaled high bits). Exact on the stored word: float32,
bfloat16, float16, the float8 formats, 4 to 32-bit integers and packed uint32 words; a
NaN keeps its payload, and a second injection of the same faults restores every bit.

References:
  FTT-NAS, arXiv 2003.10375, the i.i.d. bit-flip model (iBF).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jeff import base
from jeff.faults import fixed_point, gradients, rates, stored_words, words
from jeff.faults.model import fault_model

__all__ = ["BitFlips", "bit_flip", "checked_rates", "used_bits"]


class BitFlips(NamedTuple):
    """Sampled flips.

    Attributes:
      word: uint8, uint16 or uint32 of the array's shape: bits to flip.
      overflow: bool ``[]``: the sampler's buffer was too short, flips are missing.
    """

    word: jax.Array
    overflow: jax.Array


def bit_flip(
    rate: Any,
    *,
    bits: int | None = None,
    nonfinite: str = "keep",
    gradient: str = "masked",
    method: str | None = None,
    max_rate: float | None = None,
) -> base.FaultModel:
    """Independent flips of the bits of a stored word.

    Args:
      rate: Probability in [0, 1] that a bit flips, or one per bit, lowest first; may
        be traced.
      bits: How many low bits of a word are really stored, for codes of b bits in a
        wider integer; ``None``: all bits of the dtype, or of `Codes`.
      nonfinite: What becomes of elements that a flip makes NaN or infinite: ``"keep"``,
        ``"zero"`` or ``"clamp"``, see `stored_words.guard`.
      gradient: One of `gradients.GRADIENTS`, for floating arrays.
      method: Sampler, see `words.bit_words`.
      max_rate: Largest rate of a sweep, see `words.bit_words`.

    Returns:
      A `FaultModel` whose ``sample(key, like)`` gives `BitFlips`.

    Raises:
      TypeError: If a rate is no real number; at sampling, if the dtype has no words.
      ValueError: If an argument is out of its range; at sampling, if the method
        cannot reach a rate, or `bits` exceeds the dtype.

    Examples:
      >>> model = bit_flip(1.0, bits=3)
      >>> codes = jnp.array([0, 5], jnp.uint8)
      >>> print(model.inject(model.sample(jax.random.key(0), codes), codes))
      [7 2]
    """
    rates.check_choice("nonfinite", nonfinite, stored_words.NONFINITE)
    rates.check_choice("gradient", gradient, gradients.GRADIENTS)
    rate = checked_rates(rate, bits)

    def sample_each(keys, likes):
        drawn = words.bit_words_each(
            keys,
            rate,
            [like.shape for like in likes],
            bits=[used_bits(like, bits) for like in likes],
            method=method,
            max_rate=max_rate,
        )
        return [BitFlips(d.word, d.overflow) for d in drawn]

    def inject(faults, x):
        flipped = stored_words.change(x, lambda w: w ^ faults.word.astype(w.dtype))
        if not jnp.issubdtype(x.dtype, jnp.floating):
            return flipped
        hit = faults.word != 0
        flipped = stored_words.guard(flipped, x, hit, nonfinite)
        return gradients.straight_through(flipped, x, gradients.passing(hit, gradient))

    return fault_model(sample_each, inject)


def checked_rates(rate: Any, bits: int | None) -> Any:
    """The rate of every bit, or one per bit, checked before the word is known.

    Args:
      rate: A number or a vector, in [0, 1]; may be traced.
      bits: How many low bits are stored; ``None``: all of them.

    Returns:
      The rate as float32, see `rates.checked_rate`.

    Raises:
      TypeError: If a rate is no real number.
      ValueError: If a rate is outside [0, 1] or of two axes, `bits` no integer from 1
        to 32, or there is not one rate per bit.

    Examples:
      >>> checked_rates(0.25, 8)
      array(0.25, dtype=float32)
    """
    if bits is not None:
        fixed_point.check_bits(bits, 1, 32)
    shape = np.shape(rate)
    size = shape[0] if len(shape) == 1 and bits is None else bits
    return rates.checked_rate("rate", rate, size=size)


def used_bits(like: Any, bits: int | None) -> int:
    """How many low bits of a word may be faulty.

    Args:
      like: An array, or its shape and dtype.
      bits: What was asked for; ``None``: all that are stored.

    Returns:
      The number.

    Raises:
      TypeError: If the dtype has no words.
      ValueError: If fewer bits are stored than `bits`.

    Examples:
      >>> used_bits(jnp.zeros(2), None)
      32
    """
    stored = stored_words.stored_bits(like)
    if bits is not None and bits > stored:
        raise ValueError(f"bits={bits} exceeds the {stored} bits of {like.dtype}")
    return stored if bits is None else bits
