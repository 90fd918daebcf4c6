"""The generators in plain Python integers, one clock at a time: slow and obvious.

What the compiled generators are compared with, bit for bit. Registers are Python
integers; bit ``i - 1`` is stage i.
"""

from collections.abc import Sequence

__all__ = ["clt_sum", "lfsr_step", "lfsr_word", "rlf_count", "standardized", "wallace"]


def lfsr_step(
    state: int, width: int, taps: Sequence[int], form: str = "fibonacci"
) -> tuple[int, int]:
    """One clock of a linear feedback shift register.

    Args:
      state: The register, not 0.
      width: Number of stages n.
      taps: Feedback taps, as in `maximal_taps`.
      form: ``"fibonacci"`` (the taps are added up and enter stage 1) or ``"galois"``
        (the bit that leaves stage n is added behind every tap).

    Returns:
      ``(bit, state)``: the bit that left stage n, and the new register.

    Raises:
      ValueError: If `state` is 0 or does not fit.

    Examples:
      >>> lfsr_step(0b1000, 4, (4, 3)), lfsr_step(0b1000, 4, (4, 3), "galois")
      ((1, 1), (1, 9))
    """
    if not 0 < state < 1 << width:
        raise ValueError(f"state must be in 1 .. 2^{width} - 1, got {state}")
    bit = state >> (width - 1)
    shifted = (state << 1) & ((1 << width) - 1)
    if form == "fibonacci":
        return bit, shifted | sum(state >> (tap - 1) & 1 for tap in taps) % 2
    feedback = 1 + sum(1 << tap for tap in taps if tap < width)
    return bit, shifted ^ (feedback if bit else 0)


def lfsr_word(
    state: int, width: int, taps: Sequence[int], form: str, bits: int
) -> tuple[int, int]:
    """`bits` clocks: the bits that left, the first one in the highest place.

    Args:
      state: The register, not 0.
      width: Number of stages.
      taps: Feedback taps.
      form: As in `lfsr_step`.
      bits: Number of clocks.

    Returns:
      ``(word, state)``.

    Raises:
      ValueError: As `lfsr_step`.

    Examples:
      >>> lfsr_word(0b1000, 4, (4, 3), "fibonacci", 4)
      (8, 9)
    """
    word = 0
    for _ in range(bits):
        bit, state = lfsr_step(state, width, taps, form)
        word = word << 1 | bit
    return word, state


def standardized(centred: int, multiplier: int, shift: int) -> int:
    """``round(centred * multiplier / 2^shift)``, halves up, in integers.

    Args:
      centred: The number.
      multiplier: Integer factor.
      shift: At least 1.

    Returns:
      The rounded product.

    Examples:
      >>> standardized(-3, 5, 1), standardized(3, 5, 1)
      (-7, 8)
    """
    return (centred * multiplier + (1 << (shift - 1))) >> shift


def clt_sum(
    states: Sequence[int], width: int, taps: Sequence[int], form: str, bits: int
) -> tuple[int, list[int]]:
    """Twice the sum of one word of each register, minus its mean.

    Args:
      states: Registers, one per term.
      width: Number of stages.
      taps: Feedback taps.
      form: As in `lfsr_step`.
      bits: Bits of each word.

    Returns:
      ``(centred, states)``.

    Examples:
      >>> clt_sum([8, 1], 4, (4, 3), "fibonacci", 2)  # words 2 and 0, mean 1.5 each
      (-2, [2, 4])
    """
    pairs = [lfsr_word(state, width, taps, form, bits) for state in states]
    centred = sum(2 * word - (2**bits - 1) for word, _ in pairs)
    return centred, [state for _, state in pairs]


def rlf_count(
    state: int, width: int, taps: Sequence[int], stride: int
) -> tuple[int, int]:
    """Ones minus zeros in a register that was clocked `stride` times.

    Args:
      state: The register, not 0.
      width: Number of stages.
      taps: Feedback taps.
      stride: Number of clocks.

    Returns:
      ``(centred, state)``.

    Examples:
      >>> rlf_count(0b1000, 4, (4, 3), 2)
      (-2, 2)
    """
    for _ in range(stride):
        _, state = lfsr_step(state, width, taps)
    return 2 * state.bit_count() - width, state


def wallace(
    pool: Sequence[int], start: int, stride: int, mask: int, shuffle: bool = True
) -> tuple[list[int], int]:
    """One pass of Wallace's method over a pool of integers.

    Args:
      pool: The numbers, a power of two of them.
      start: First address.
      stride: Odd step of the addresses.
      mask: What addresses are XORed with.
      shuffle: Whether the results of a quad go to four quarters of the pool.

    Returns:
      ``(pool, change)``: the new pool, and by how much its sum of squares has grown.

    Examples:
      >>> wallace([1, 2, 3, 4], 0, 1, 0)
      ([-4, -3, 2, 1], 0)
    """
    size, quads = len(pool), []
    for q in range(size // 4):
        places = range(4 * q, 4 * q + 4)
        a, b, c, d = (pool[((start + i * stride) % size) ^ mask] for i in places)
        half = (a + b + c + d) >> 1
        quads.append([a - half, b - half, half - c, half - d])
    columns = zip(*quads, strict=True) if shuffle else quads
    after = [number for column in columns for number in column]
    return after, sum(x * x for x in after) - sum(x * x for x in pool)
