"""Binomial normals: the ones in a long linear feedback register.

A register of n bits that obeys ``b[t] = b[t - t1] ^ b[t - t2] ^ ...`` is kept in a RAM;
of its bits, `stride` are replaced per draw, and the output is the number of ones, which
is binomial (n, 1/2) over the period:

    C = 2 ones - n,    Var(C) = n,    kurt = -2 / n

Few new bits per draw are cheap and correlate: two draws L apart share
``n - L stride`` bits, so

    corr(L) = max(0, 1 - L stride / n).

A stride of n bits replaces all of them and leaves no such correlation.

This is the family of VIBNN's RAM-based linear feedback generator, of which only the
abstract is used here: it says that the generator is inspired by the binomial
distribution and linear feedback logic. Register length, stride and lanes are free
parameters here, and what follows from them is derived above; nothing is VIBNN's.

References:
  R. Cai et al., "VIBNN: Hardware Acceleration of Bayesian Neural Networks",
  arXiv 1802.00822, abstract.
"""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.core import Tracer

from hwsim.rng.draw_function import draw_function
from hwsim.rng.standardize import Scale, scale_to_unit, standardize
from hwsim.rng.structure import Structure
from hwsim.rng.taps import maximal_taps

__all__ = ["Rlf", "draw", "normal", "seed"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rlf:
    """A binomial generator with a feedback register in RAM.

    Attributes:
      width: Bits of the register, 3 to 64, 127 or 255 (`maximal_taps`).
      stride: New bits per draw, 1 to `width`; ``None`` replaces all.
      lanes: Draws per clock, each with a register of its own.
      fraction_bits: Binary places of the fixed-point output.

    Raises:
      ValueError: If a number is out of range.

    Examples:
      >>> Rlf(width=127).stride
      127
    """

    width: int = 255
    stride: int | None = None
    lanes: int = 16
    fraction_bits: int = 12

    def __post_init__(self):
        """Checks the fields and fills in the stride."""
        maximal_taps(self.width)
        if self.stride is None:
            object.__setattr__(self, "stride", self.width)
        if self.stride not in range(1, self.width + 1):
            raise ValueError(f"stride must be 1 to {self.width}, got {self.stride!r}")
        if self.lanes < 1:
            raise ValueError(f"lanes must be at least 1, got {self.lanes!r}")
        if self.fraction_bits not in range(1, 16):
            raise ValueError(f"fraction_bits must be 1 to 15: {self.fraction_bits!r}")

    @property
    def scale(self) -> Scale:
        """The factor from ones minus zeros to the fixed-point output."""
        return scale_to_unit(math.sqrt(self.width), self.fraction_bits)

    def structure(self) -> Structure:
        """What one lane is built of.

        RAM for the register, of which ``1 + taps`` bits are moved per new bit (one
        written, the old ones read); exclusive-ors; a counter of the difference, which
        adds the new and takes off the old bits: a tree of adders over ``2 stride``
        bits, and the running count. The factor to unit variance is left out, as in
        `hwsim.rng.clt.Clt.structure`.

        Returns:
          The parts of one lane.
        """
        taps = maximal_taps(self.width)
        stride = self.stride or self.width
        counter = self.width.bit_length() + 1
        return Structure(
            flip_flops=counter,
            xor_gates=stride * (len(taps) - 1),
            # A tree over m bits has m - 1 full adders or so, plus the count itself.
            adder_bits=2 * stride + counter,
            longest_adder=counter,
            ram_bits=self.width,
            ram_bits_moved=stride * (1 + len(taps)),
        )


def seed(key: jax.Array, settings: Rlf) -> jax.Array:
    """Registers of all lanes in random states, never all zero.

    Args:
      key: A JAX key; where all its bits are 0 the newest is set.
      settings: The generator.

    Returns:
      State, uint8 ``[lanes, width]`` of zeros and ones, the oldest bit first.

    Examples:
      >>> seed_of = jax.jit(seed, static_argnums=1)
      >>> print(seed_of(jax.random.key(0), Rlf(width=7, lanes=2)))
      [[1 0 0 1 1 1 1]
       [0 1 0 1 1 1 0]]
    """
    shape = settings.lanes, settings.width
    state = jax.random.bits(key, shape, jnp.uint8) & jnp.uint8(1)
    zero = (state == 0).all(axis=-1)
    return state.at[:, -1].set(jnp.where(zero, jnp.uint8(1), state[:, -1]))


def draw(state: jax.Array, settings: Rlf, steps: int) -> tuple[jax.Array, jax.Array]:
    """The next draws of all lanes, as fixed-point integers.

    Args:
      state: As `seed` gives it.
      settings: The generator.
      steps: Clocks.

    Returns:
      ``(codes, state)``: int32 ``[steps, lanes]``, each standing for
      ``code / 2^fraction_bits``; and the registers after it.

    Raises:
      ValueError: If the state has another shape or a known register is all zero.

    Examples:
      >>> generator = Rlf(width=63, lanes=2)
      >>> run = jax.jit(lambda key: draw(seed(key, generator), generator, 2))
      >>> codes, _ = run(jax.random.key(0))
      >>> print(codes / 2**12)
      [[ 0.12597656  1.6379395 ]
       [ 0.6298828  -0.12597656]]
    """
    if state.shape != (settings.lanes, settings.width):
        raise ValueError(
            f"state must be [{settings.lanes}, {settings.width}], got {state.shape}"
        )
    known = not isinstance(state, Tracer)
    if known and not bool((state != 0).any(axis=-1).all()):
        raise ValueError("state must not be all zero: such a register stays at zero")
    taps = maximal_taps(settings.width)
    stride = settings.stride or settings.width

    def clock(state, _):
        left = stride
        while left:  # as many new bits as depend on old ones only
            count = min(left, taps[-1])
            new = jnp.zeros((), jnp.uint8)
            for tap in taps:
                first = settings.width - tap
                new = new ^ state[:, first : first + count]
            state = jnp.concatenate([state[:, count:], new], axis=1)
            left -= count
        return state, state.astype(jnp.int32).sum(axis=-1)

    state, ones = jax.lax.scan(clock, state, length=steps)
    centred = 2 * ones - jnp.int32(settings.width)
    return standardize(centred, settings.scale), state


def normal(settings: Rlf | None = None) -> Callable[[jax.Array, int], jax.Array]:
    """The generator as a draw function: ``normal_fn(key, n)``.

    The key gives the registers their states, and is used for nothing else. Draw i comes
    from lane ``i % lanes`` at clock ``i // lanes``.

    Args:
      settings: The generator; `Rlf()` if left out.

    Returns:
      A pure function of a key and a static number, float32 ``[n]``; it may be mapped
      with ``vmap`` and compiled.

    Examples:
      >>> normal_fn = jax.jit(normal(Rlf(width=63)), static_argnums=1)
      >>> print(normal_fn(jax.random.key(0), 3))
      [0.12597656 1.6379395  1.3859863 ]
    """
    settings = Rlf() if settings is None else settings

    def codes(key, steps):
        return draw(seed(key, settings), settings, steps)[0]

    return draw_function(codes, settings.lanes, settings.fraction_bits)
