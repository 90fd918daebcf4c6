"""Linear feedback shift registers: banks of them, several bits per clock, bit-exact.

A clock is linear over GF(2), so k clocks are one fixed matrix of exclusive-ors: in
hardware the *leap-forward* register, here one look-up per byte of the register in
tables made on the host from the slow model (`hwsim.rng.reference`). Registers are
uint32 words, the lowest first: ``[..., ceil(width / 32)]``.

References:
  P. P. Chu, R. E. Jones, "Design Techniques of FPGA Based Random Number Generator"
  (MAPLD 1999), for the leap-forward register. Taps: `hwsim.rng.taps`.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from hwsim.rng import reference
from hwsim.rng.taps import maximal_taps

__all__ = ["FORMS", "Lfsr", "bank", "spaced", "step", "words"]

FORMS = ("fibonacci", "galois")
"""Where the exclusive-ors stand: before stage 1, or between the stages."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lfsr:
    """A register and how it is read.

    Attributes:
      width: Number of stages, 3 to 64.
      bits: Bits per word, that is clocks per word; at most `width` and 32.
      form: One of `FORMS`.
      taps: Feedback taps, falling from `width`; ``None`` for a maximal period
        (`maximal_taps`). Other taps are taken as they are.

    Raises:
      ValueError: If a number is out of range, the form is another word, or the taps are
        not distinct and falling from `width`.

    Examples:
      >>> Lfsr(width=16, bits=4).taps
      (16, 15, 13, 4)
    """

    width: int = 64
    bits: int = 8
    form: str = "fibonacci"
    taps: tuple[int, ...] | None = None

    def __post_init__(self):
        """Checks the fields and fills in the taps."""
        if self.width not in range(3, 65):
            raise ValueError(f"width must be 3 to 64, got {self.width!r}")
        if self.bits not in range(1, min(self.width, 32) + 1):
            raise ValueError(
                f"bits must be 1 to {min(self.width, 32)}, got {self.bits!r}"
            )
        if self.form not in FORMS:
            raise ValueError(f"form must be one of {FORMS}, got {self.form!r}")
        taps = maximal_taps(self.width) if self.taps is None else tuple(self.taps)
        object.__setattr__(self, "taps", taps)
        falling = sorted(set(taps), reverse=True)
        if list(taps) != falling or taps[0] != self.width or taps[-1] < 1:
            raise ValueError(f"taps must fall from {self.width} to 1 or more: {taps}")

    @property
    def words(self) -> int:
        """How many uint32 words the register takes."""
        return -(-self.width // 32)

    @property
    def xor_gates(self) -> int:
        """Two-input gates of the leap-forward feedback, no gate shared.

        The matrix of `bits` clocks has one row per stage; a row of r ones is ``r - 1``
        gates.
        """
        columns = np.array([column[0] for column in _columns(self)], np.uint64)
        stages = np.arange(self.width, dtype=np.uint64)
        ones = (columns[:, None] >> stages & np.uint64(1)).sum(axis=0)
        return int(np.maximum(ones.astype(np.int64) - 1, 0).sum())


def bank(key: jax.Array, lfsr: Lfsr, shape: tuple[int, ...] = ()) -> jax.Array:
    """Registers in random states, never all zero.

    Args:
      key: A JAX key; the states are its random words, cut to the width, and 1 where
        that is 0 (which makes the state 1 twice as likely as any other).
      lfsr: The register.
      shape: How many of them.

    Returns:
      States, uint32 ``[*shape, lfsr.words]``.

    Examples:
      >>> bank_of = jax.jit(bank, static_argnums=(1, 2))
      >>> print(bank_of(jax.random.key(0), Lfsr(width=16), (3,)).ravel())
      [20391 13970  3624]
    """
    state = jax.random.bits(key, (*shape, lfsr.words), jnp.uint32) & _mask(lfsr)
    zero = (state == 0).all(axis=-1)
    return state.at[..., 0].set(jnp.where(zero, jnp.uint32(1), state[..., 0]))


def spaced(state: jax.Array, lfsr: Lfsr, count: int) -> jax.Array:
    """Registers at equal distances along the sequence of one register.

    Their sequences do not meet for ``(2^width - 1) // count`` clocks, while random
    states of a narrow register may meet at once.

    Args:
      state: The first register, uint32 ``[lfsr.words]``, not all zero.
      lfsr: The register.
      count: How many registers; less than its period.

    Returns:
      States, uint32 ``[count, lfsr.words]``; the first is `state`.

    Raises:
      ValueError: If `count` is out of range, or a known `state` is all zero.

    Examples:
      >>> first = jnp.array([1], jnp.uint32)
      >>> print(spaced(first, Lfsr(width=8), 5).ravel())  # 51 clocks apart
      [  1  10  67 157 213]
    """
    if count not in range(1, 2**lfsr.width - 1):
        raise ValueError(f"count must be 1 to 2^{lfsr.width} - 2, got {count!r}")
    _check_state(state, lfsr)
    stage = np.arange(lfsr.width)
    bits = state[stage // 32] >> jnp.asarray(stage % 32, jnp.uint32) & jnp.uint32(1)
    parts = jnp.asarray(_spaced_columns(lfsr, count)) * bits[:, None]
    return jax.lax.reduce(parts, jnp.uint32(0), jax.lax.bitwise_xor, (1,))


def step(state: jax.Array, lfsr: Lfsr) -> tuple[jax.Array, jax.Array]:
    """One clock, as the circuit does it: a shift and a few exclusive-ors.

    Args:
      state: Registers, uint32 ``[..., lfsr.words]``.
      lfsr: The register.

    Returns:
      ``(bit, state)``: the bits that left stage n, uint32 ``[...]``, and the registers.

    Raises:
      ValueError: If a known state is all zero, or has another shape or type.

    Examples:
      >>> bit, state = step(jnp.array([8], jnp.uint32), Lfsr(width=4, bits=1))
      >>> print(bit, state)
      1 [1]
    """
    _check_state(state, lfsr)
    taps = lfsr.taps or ()
    bit = _stage(state, lfsr.width)
    carry = jnp.concatenate(
        [jnp.zeros_like(state[..., :1]), state[..., :-1] >> jnp.uint32(31)], axis=-1
    )
    shifted = (state << jnp.uint32(1) | carry) & _mask(lfsr)
    if lfsr.form == "fibonacci":
        entering = functools.reduce(jnp.bitwise_xor, [_stage(state, t) for t in taps])
        return bit, shifted.at[..., 0].set(shifted[..., 0] | entering)
    feedback = 1 + sum(1 << tap for tap in taps if tap < lfsr.width)
    return bit, shifted ^ (bit[..., None] * jnp.asarray(_split(feedback, lfsr.words)))


def words(state: jax.Array, lfsr: Lfsr, count: int) -> tuple[jax.Array, jax.Array]:
    """The next words of a bank of registers, `lfsr.bits` clocks each.

    Args:
      state: Registers, uint32 ``[..., lfsr.words]``.
      lfsr: The register.
      count: Words per register.

    Returns:
      ``(words, state)``: uint32 ``[count, ...]`` below ``2^bits``, the bit that left
      first in the highest place; and the registers after ``count * bits`` clocks.

    Raises:
      ValueError: If a known state is all zero, or has another shape or type.

    Examples:
      >>> lfsr = Lfsr(width=8, bits=4)
      >>> drawn, state = words(jnp.array([[1], [128]], jnp.uint32), lfsr, 4)
      >>> print(drawn.T.tolist(), state.ravel())
      [[0, 1, 1, 12], [8, 0, 8, 14]] [75 37]
    """
    _check_state(state, lfsr)
    table = jnp.asarray(_table(lfsr))

    def leap(state, _):
        both = functools.reduce(
            jnp.bitwise_xor,
            [
                table[b][state[..., b // 4] >> jnp.uint32(b % 4 * 8) & jnp.uint32(0xFF)]
                for b in range(len(table))
            ],
        )
        return both[..., :-1], both[..., -1]

    state, drawn = jax.lax.scan(leap, state, length=count)
    return drawn, state


def _stage(state, number):
    """Bit of stage `number`, uint32."""
    i = number - 1
    return state[..., i // 32] >> jnp.uint32(i % 32) & jnp.uint32(1)


def _mask(lfsr):
    return jnp.asarray(_split((1 << lfsr.width) - 1, lfsr.words))


def _split(number: int, count: int) -> np.ndarray:
    """A Python integer as `count` uint32 words, the lowest first."""
    return np.array([number >> 32 * i & 0xFFFFFFFF for i in range(count)], np.uint32)


def _check_state(state, lfsr):
    if state.dtype != jnp.uint32 or state.ndim < 1 or state.shape[-1] != lfsr.words:
        raise ValueError(
            f"state must be uint32 [..., {lfsr.words}] for a width of {lfsr.width}, "
            f"got {state.dtype} {state.shape}"
        )
    if not isinstance(state, Tracer) and not np.all(
        np.any(np.asarray(state) != 0, axis=-1)
    ):
        raise ValueError("state must not be all zero: such a register stays at zero")


@functools.lru_cache(maxsize=64)
def _columns(lfsr: Lfsr) -> tuple[tuple[int, int], ...]:
    """State and word that each single bit of the register turns into."""
    taps = lfsr.taps or ()
    pairs = [
        reference.lfsr_word(1 << i, lfsr.width, taps, lfsr.form, lfsr.bits)
        for i in range(lfsr.width)
    ]
    return tuple((state, word) for word, state in pairs)


@functools.lru_cache(maxsize=64)
def _table(lfsr: Lfsr) -> np.ndarray:
    """What each value of each byte adds: uint32 ``[bytes, 256, words + 1]``."""
    rows = np.array(
        [[*_split(state, lfsr.words), word] for state, word in _columns(lfsr)],
        np.uint32,
    )
    rows = np.pad(rows, ((0, -lfsr.width % 8), (0, 0))).reshape(-1, 8, lfsr.words + 1)
    table = np.zeros((len(rows), 256, lfsr.words + 1), np.uint32)
    for bit in range(8):  # values below 2^(bit + 1) are those below 2^bit, and more
        size = 1 << bit
        table[:, size : 2 * size] = table[:, :size] ^ rows[:, bit, None]
    return table


@functools.lru_cache(maxsize=8)
def _spaced_columns(lfsr: Lfsr, count: int) -> np.ndarray:
    """What each bit of the first register adds to each: ``[count, width, words]``."""
    single = dataclasses.replace(lfsr, bits=1)
    power = [state for state, _ in _columns(single)]
    jump = [1 << i for i in range(lfsr.width)]
    distance = (2**lfsr.width - 1) // count
    while distance:  # square and multiply
        if distance & 1:
            jump = [_apply(power, column) for column in jump]
        power = [_apply(power, column) for column in power]
        distance >>= 1
    columns, here = [], [1 << i for i in range(lfsr.width)]
    for _ in range(count):
        columns.append([_split(column, lfsr.words) for column in here])
        here = [_apply(jump, column) for column in here]
    return np.array(columns, np.uint32)


def _apply(columns: list[int], state: int) -> int:
    """A linear map, given by its columns, of one state."""
    after = 0
    for i, column in enumerate(columns):
        if state >> i & 1:
            after ^= column
    return after
