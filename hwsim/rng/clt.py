"""Normals by the central limit theorem: sums of the words of shift registers.

A lane has `terms` registers; every clock each gives a word of `bits` bits, uniform on
``0 .. 2^bits - 1``. Their sum S, centred and doubled so that it is an integer, is

    C = 2 S - terms (2^bits - 1),    Var(C) = terms (4^bits - 1) / 3

and ``C / sqrt(Var(C))`` is close to normal. With one bit per word S is binomial. The
sum is symmetric, so only even cumulants are off; the largest is the excess kurtosis

    kurt = -(6 / 5) (4^bits + 1) / (4^bits - 1) / terms

(that of one uniform word, divided by the number of terms), and no value is further out
than ``sqrt(3 terms (2^bits - 1) / (2^bits + 1))`` standard deviations.

References:
  Cumulants of a discrete uniform variable, added up over independent terms: derivation
  above. The registers are linear over GF(2), hence independent only as far as
  `hwsim.rng.quality` can tell.
"""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from hwsim.rng import lfsr
from hwsim.rng.draw_function import draw_function
from hwsim.rng.standardize import Scale, scale_to_unit, standardize
from hwsim.rng.structure import Structure

__all__ = ["Clt", "distribution", "draw", "excess_kurtosis", "normal", "seed"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clt:
    """A generator of the central limit theorem.

    Attributes:
      terms: Words that are added up, one register each.
      bits: Bits of a word; 1 makes the sum binomial.
      width: Stages of each register, 3 to 64.
      form: Form of the registers, see `lfsr.FORMS`.
      lanes: Draws per clock, each with registers of its own.
      fraction_bits: Binary places of the fixed-point output.

    Raises:
      ValueError: If a number is out of range, or ``terms (2^bits - 1)`` is not below
        ``2^15``, the largest sum that 32-bit arithmetic can scale.

    Examples:
      >>> Clt(terms=12, bits=8).scale
      Scale(multiplier=32768, shift=12)
    """

    terms: int = 12
    bits: int = 8
    width: int = 64
    form: str = "fibonacci"
    lanes: int = 16
    fraction_bits: int = 12

    def __post_init__(self):
        """Checks the fields; the register checks its own."""
        if self.terms < 1 or self.lanes < 1:
            raise ValueError(
                f"terms and lanes must be at least 1, got {self.terms!r}, "
                f"{self.lanes!r}"
            )
        if self.fraction_bits not in range(1, 16):
            raise ValueError(f"fraction_bits must be 1 to 15: {self.fraction_bits!r}")
        if self.terms * (2**self.register.bits - 1) >= 2**15:
            raise ValueError(
                f"terms (2^bits - 1) must be below 2^15: {self.terms}, {self.bits}"
            )
        _ = self.scale

    @property
    def register(self) -> lfsr.Lfsr:
        """One of the registers."""
        return lfsr.Lfsr(width=self.width, bits=self.bits, form=self.form)

    @property
    def scale(self) -> Scale:
        """The factor from the centred sum to the fixed-point output."""
        variance = self.terms * (4**self.bits - 1) / 3
        return scale_to_unit(math.sqrt(variance), self.fraction_bits)

    def structure(self) -> Structure:
        """What one lane is built of: registers and a tree of adders.

        The factor to unit variance is left out: a datapath multiplies the draw with a
        stored standard deviation anyway, which can hold it.

        Returns:
          The parts of one lane.
        """
        adder_bits, longest, numbers, bits = 0, 0, self.terms, self.bits
        while numbers > 1:  # adders of one level are one bit longer than the last
            bits += 1
            adder_bits += numbers // 2 * bits
            longest = bits
            numbers = numbers // 2 + numbers % 2
        return Structure(
            flip_flops=self.terms * self.width,
            xor_gates=self.terms * self.register.xor_gates,
            adder_bits=adder_bits,
            longest_adder=longest,
        )


def seed(key: jax.Array, settings: Clt) -> jax.Array:
    """Registers of all lanes in random states (`lfsr.bank`).

    Args:
      key: A JAX key.
      settings: The generator.

    Returns:
      State, uint32 ``[lanes, terms, words]``.

    Examples:
      >>> seed(jax.random.key(0), Clt(terms=4, lanes=2)).shape
      (2, 4, 2)
    """
    return lfsr.bank(key, settings.register, (settings.lanes, settings.terms))


def draw(state: jax.Array, settings: Clt, steps: int) -> tuple[jax.Array, jax.Array]:
    """The next draws of all lanes, as fixed-point integers.

    Args:
      state: As `seed` gives it.
      settings: The generator.
      steps: Clocks.

    Returns:
      ``(codes, state)``: int32 ``[steps, lanes]``, each standing for
      ``code / 2^fraction_bits``; and the registers after it.

    Raises:
      ValueError: If a known register is all zero, or the state has another shape.

    Examples:
      >>> generator = Clt(terms=4, lanes=2)
      >>> run = jax.jit(lambda key: draw(seed(key, generator), generator, 3))
      >>> codes, state = run(jax.random.key(0))
      >>> print(codes / 2**12)
      [[ 0.5209961  -0.52783203]
       [ 0.64282227 -0.79833984]
       [ 0.14208984  1.576416  ]]
    """
    expected = (settings.lanes, settings.terms)
    if state.shape[:-1] != expected:
        raise ValueError(f"state must be [{expected}, words], got {state.shape}")
    words, state = lfsr.words(state, settings.register, steps)
    total = words.astype(jnp.int32).sum(axis=-1)
    centred = 2 * total - jnp.int32(settings.terms * (2**settings.bits - 1))
    return standardize(centred, settings.scale), state


def normal(settings: Clt | None = None) -> Callable[[jax.Array, int], jax.Array]:
    """The generator as a draw function: ``normal_fn(key, n)``.

    The key gives the registers their states, and is used for nothing else. Draw i comes
    from lane ``i % lanes`` at clock ``i // lanes``, so a shorter draw is the beginning
    of a longer one.

    Args:
      settings: The generator; `Clt()` if left out.

    Returns:
      A pure function of a key and a static number, float32 ``[n]``; it may be mapped
      with ``vmap`` and compiled.

    Examples:
      >>> normal_fn = jax.jit(normal(Clt(terms=4)), static_argnums=1)
      >>> print(normal_fn(jax.random.key(0), 3))
      [ 0.5209961  -0.52783203  0.87280273]
    """
    settings = Clt() if settings is None else settings

    def codes(key, steps):
        return draw(seed(key, settings), settings, steps)[0]

    return draw_function(codes, settings.lanes, settings.fraction_bits)


def distribution(settings: Clt) -> tuple[np.ndarray, np.ndarray]:
    """Exact distribution of the fixed-point output, for ideal words.

    Args:
      settings: The generator.

    Returns:
      ``(values, probabilities)``, float64, rising values.

    Examples:
      >>> values, chance = distribution(Clt(terms=2, bits=1))
      >>> print(values, chance)
      [-1.41430664  0.          1.41430664] [0.25 0.5  0.25]
    """
    uniform = np.full(2**settings.bits, 2.0**-settings.bits)
    chance = np.ones(1)
    for _ in range(settings.terms):
        chance = np.convolve(chance, uniform)
    centred = 2 * np.arange(len(chance)) - (len(chance) - 1)
    factor, shift = settings.scale
    codes = (centred * factor + 2 ** (shift - 1)) >> shift
    return codes / 2**settings.fraction_bits, chance


def excess_kurtosis(settings: Clt) -> float:
    """Excess kurtosis of the sum, ``-1.2 (4^bits + 1) / (4^bits - 1) / terms``.

    Args:
      settings: The generator.

    Returns:
      The excess kurtosis; 0 is normal.

    Examples:
      >>> round(excess_kurtosis(Clt(terms=12, bits=8)), 4), excess_kurtosis(
      ...     Clt(terms=4, bits=1)
      ... )
      (-0.1, -0.5)
    """
    square = 4.0**settings.bits
    return -1.2 * (square + 1) / (square - 1) / settings.terms
