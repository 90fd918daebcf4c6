"""Normals from normals: Wallace's pool, in integers, to the bit.

A pool of N = 2^k fixed-point normals is transformed four at a time by an orthogonal
matrix (`hwsim.rng.pool`), so the sum of squares stays what it was, and normals stay
normal. Which four meet is set by a permutation of addresses,
``((start + i stride) mod N) xor mask`` with an odd stride, drawn anew from a shift
register in every pass.

**Shuffle.** In all these permutations the low bits of an address depend on the low bits
of i only, so numbers i and ``i + N / 2`` have addresses half a pool apart, always. If
results went back to the places of their numbers, the sums and the differences of such
pairs would be transformed apart from each other, each with a sum of squares of its own:
a correlation at lag ``N / 2`` that never goes away. So the four results of a quad go to
four quarters of the pool, which turns the bits of the address by two and costs nothing
but wires.

**Rounding.** The change that a pass makes to the sum of squares is known exactly
(`hwsim.rng.pool`); a ledger adds it up, so that the sum of squares of the pool is
``N 4^f + ledger`` at all times.

**Sum of squares.** That of N true normals is not constant but chi-square with N degrees
of freedom. So each block that leaves is scaled by ``1 + g``,

    g = v / sqrt(2 N) - 1 / (4 N) - ledger / (2 N 4^f)

the normal approximation of ``sqrt(chi^2 / N)`` with a value v of the pass before, less
what the ledger says the pool has gained.

References:
  C. S. Wallace, "Fast pseudorandom generators for normal and exponential variates",
  ACM TOMS 22(1), 1996, for the method; D.-U. Lee, W. Luk, J. D. Villasenor, G. Zhang,
  P. H. W. Leong, "A hardware Gaussian noise generator using the Wallace method",
  IEEE TVLSI 13(8), 2005, doi 10.1109/TVLSI.2005.853615, for addresses by start, stride
  and mask (both recalled, not at hand). Ledger and bounds: derivations above. VIBNN
  (arXiv 1802.00822, abstract) has a Wallace generator for Bayesian networks, whose
  details are not used here.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hwsim.rng import lfsr
from hwsim.rng.draw_function import draw_function
from hwsim.rng.pool import first_pool, transform
from hwsim.rng.structure import Structure

__all__ = ["ADDRESSES", "Wallace", "WallaceState", "draw", "normal", "seed"]

ADDRESSES = ("shuffled", "in_place", "fixed")
"""How addresses are made: as one should, and two ways that tests must find bad."""

_GAIN_BITS = 14  # binary places of g


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wallace:
    """A generator of Wallace's kind.

    Attributes:
      pool: Size of the pool, a power of two from 16 to 65,536.
      fraction_bits: Binary places of the pool's and the output's integers.
      passes: Transformations between two blocks of output, at least 2: the value that
        sets a block's sum of squares comes from a pool that is never given out.
      warm_up: Transformations before the first block. After k of them a value is made
        of up to ``4^k`` of the table's.
      addresses: One of `ADDRESSES`. Only ``"shuffled"`` is sound, as described above;
        with ``"in_place"`` results stay at their numbers, and with ``"fixed"`` numbers
        are addresses too, so that the same four always meet and the pool comes back
        after four passes.
      correct: Whether the sum of squares of a block is corrected.

    Raises:
      ValueError: If a number is out of range, or the products would not fit 32 bits:
        ``2 fraction_bits + log2(pool)`` may be 34 at most.

    Examples:
      >>> Wallace(pool=4096, fraction_bits=12)
      Traceback (most recent call last):
        ...
      ValueError: 2 fraction_bits + log2(pool) must be at most 34, got 36
    """

    pool: int = 1024
    fraction_bits: int = 12
    passes: int = 2
    warm_up: int = 8
    addresses: str = "shuffled"
    correct: bool = True

    def __post_init__(self):
        """Checks the fields."""
        if self.pool not in [2**k for k in range(4, 17)]:
            raise ValueError(f"pool must be a power of two, 16 to 65536: {self.pool!r}")
        if self.fraction_bits < 5:
            raise ValueError(f"fraction_bits must be 5 or more: {self.fraction_bits!r}")
        total = 2 * self.fraction_bits + self.address_bits
        if total > 34:
            raise ValueError(
                f"2 fraction_bits + log2(pool) must be at most 34, got {total}"
            )
        if self.addresses not in ADDRESSES:
            raise ValueError(
                f"addresses must be one of {ADDRESSES}, got {self.addresses!r}"
            )
        if self.passes < 2:
            raise ValueError(f"passes must be at least 2, got {self.passes!r}")
        if self.warm_up < 0:
            raise ValueError(f"warm_up must be at least 0, got {self.warm_up!r}")

    @property
    def address_bits(self) -> int:
        """``log2(pool)``."""
        return self.pool.bit_length() - 1

    @property
    def register(self) -> lfsr.Lfsr:
        """The shift register that addresses come from."""
        return lfsr.Lfsr(width=64, bits=self.address_bits)

    def structure(self) -> Structure:
        """What one lane is built of: its share of a unit that does a quad per clock.

        A unit has the pool, seven adders (three for the sum, four differences), an
        address counter and the register, and moves eight numbers per clock; a draw
        takes ``passes / 4`` of it, and a product for the correction.

        Returns:
          The parts of one lane.
        """
        share = self.passes / 4
        width = self.fraction_bits + 4  # sign, and magnitudes below 8
        return Structure(
            flip_flops=share * (64 + 3 * self.address_bits),
            xor_gates=share * (self.register.xor_gates + 4 * self.address_bits),
            adder_bits=share * (7 * (width + 2) + 4 * self.address_bits),
            longest_adder=width + 2,
            multiplier_bits=width * (_GAIN_BITS + 1) * self.correct,
            longest_multiplier=(width + _GAIN_BITS + 1) * self.correct,
            ram_bits=share * self.pool * width,
            ram_bits_moved=share * 8 * width,
        )


class WallaceState(NamedTuple):
    """A pool between two passes.

    Attributes:
      pool: int32 ``[pool]``, each standing for ``value / 2^fraction_bits``.
      ledger: int32 ``[]``: sum of squares of the pool, less ``pool * 4^fraction_bits``.
      register: uint32 ``[2]``: the address register.
    """

    pool: jax.Array
    ledger: jax.Array
    register: jax.Array


def seed(key: jax.Array, settings: Wallace) -> WallaceState:
    """The table of normals after `warm_up` passes with random addresses.

    Args:
      key: A JAX key; it sets the address register (`lfsr.bank`), nothing else. The
        table is that of the quantiles of the normal distribution.
      settings: The generator.

    Returns:
      The state.

    Examples:
      >>> settings = Wallace(pool=16)
      >>> state = seed(jax.random.key(0), settings)
      >>> int((state.pool**2).sum() - state.ledger), 16 * 4**12
      (268435456, 268435456)
    """
    table, ledger = first_pool(settings.pool, settings.fraction_bits)
    register = lfsr.bank(key, settings.register)
    state = WallaceState(jnp.asarray(table), jnp.int32(ledger), register)
    return _passes(state, settings, settings.warm_up)


def draw(
    state: WallaceState, settings: Wallace, steps: int
) -> tuple[jax.Array, WallaceState]:
    """The next blocks of output, as fixed-point integers.

    Args:
      state: As `seed` gives it.
      settings: The generator.
      steps: Number of blocks.

    Returns:
      ``(codes, state)``: int32 ``[steps, pool]``, each standing for
      ``code / 2^fraction_bits``; and the state after it.

    Raises:
      ValueError: If the pool of the state has another size.

    Examples:
      >>> settings = Wallace(pool=16)
      >>> run = jax.jit(lambda key: draw(seed(key, settings), settings, 3))
      >>> codes, state = run(jax.random.key(0))
      >>> codes.shape
      (3, 16)
    """
    if state.pool.shape != (settings.pool,):
        raise ValueError(f"pool must be [{settings.pool}], got {state.pool.shape}")

    def block(state, _):
        before = _passes(state, settings, settings.passes - 1)
        state = _passes(before, settings, 1)
        codes = state.pool
        if settings.correct:
            codes = _scaled(codes, before.pool[0], state.ledger, settings)
        return state, codes

    state, codes = jax.lax.scan(block, state, length=steps)
    return codes, state


def normal(settings: Wallace | None = None) -> Callable[[jax.Array, int], jax.Array]:
    """The generator as a draw function: ``normal_fn(key, n)``.

    The key sets the address register; draws are whole blocks in order, cut to n.

    Args:
      settings: The generator; `Wallace()` if left out.

    Returns:
      A pure function of a key and a static number, float32 ``[n]``; it may be mapped
      with ``vmap`` and compiled.

    Examples:
      >>> normal_fn = jax.jit(normal(Wallace(pool=64)), static_argnums=1)
      >>> drawn = normal_fn(jax.random.key(0), 100)
      >>> drawn.shape, drawn.dtype
      ((100,), dtype('float32'))
    """
    settings = Wallace() if settings is None else settings

    def codes(key, steps):
        return draw(seed(key, settings), settings, steps)[0]

    return draw_function(codes, settings.pool, settings.fraction_bits)


def _passes(state, settings, count):
    """`count` passes, each with addresses of its own."""

    def one(state, _):
        zero, register = jnp.int32(0), state.register
        start, stride, mask = zero, jnp.int32(1), zero
        if settings.addresses != "fixed":
            drawn, register = lfsr.words(register, settings.register, 3)
            start, stride, mask = drawn.astype(jnp.int32)
            stride = stride | jnp.int32(1)
        shuffle = settings.addresses == "shuffled"
        pool, change = transform(state.pool, start, stride, mask, shuffle=shuffle)
        return WallaceState(pool, state.ledger + change, register), None

    return jax.lax.scan(one, state, length=count)[0]


def _scaled(codes, value, ledger, settings):
    """Codes times ``1 + g``; no product passes 2^31 while the ledger is small.

    ``|codes|`` and ``|value|`` are at most ``sqrt(N) 2^f <= 2^17``, so that
    ``|g| <= 1 / sqrt(2)`` but for the two small terms.
    """
    f, k = settings.fraction_bits, settings.address_bits
    # 2^14 v / (sqrt(2 N) 2^f), with v as code, by a factor of 12 bits.
    exact = 2.0 ** (_GAIN_BITS - f) / math.sqrt(2 * settings.pool)
    shift = 11 - math.floor(math.log2(exact))
    gain = (value * jnp.int32(round(exact * 2**shift))) >> jnp.int32(shift)
    gain = gain - jnp.int32(round(2**_GAIN_BITS / (4 * settings.pool)))
    gain = gain - (ledger >> jnp.int32(1 + k + 2 * f - _GAIN_BITS))
    half = jnp.int32(1 << (_GAIN_BITS - 1))
    return codes + ((codes * gain + half) >> jnp.int32(_GAIN_BITS))
