"""Packed layouts: integers of 2, 3, 4 or 8 bits in 32-bit words, none wasted.

One family of layouts, *K-strided*. Along the packed axis, a tile of ``32 * S`` codes is
kept in ``bits * S`` words; S is the `stride`. Code ``i * S + j`` of a tile is in *slot*
``i`` (0 to 31) of word *column* ``j`` (0 to S - 1), and word row ``r`` of column ``j``
is word ``r * S + j``::

                column 0      column 1      ...   column S-1
    row 0       word 0        word 1              word S-1
    row 1       word S        word S+1            word 2S-1
    ...
    slot i      code i*S      code i*S + 1        code i*S + S-1

So a slot is a run of S neighboring codes, and unpacking it is the same shift and mask
of S neighboring words: no gather, no sub-byte type, and the result already lies like
the words do, in registers as in memory. For example with ``S = 2`` and ``bits = 8`` (4
codes per word, 8 rows, a tile of 64)::

    word 0 = codes 0, 2, 4, 6      word 1 = codes 1, 3, 5, 7      (low byte first)
    word 2 = codes 8, 10, 12, 14   word 3 = codes 9, 11, 13, 15   ...

**2, 4 and 8 bits**: ``P = 32 / bits`` codes per word; slot ``i`` is in row ``i // P``
at bit ``bits * (i % P)``.

**3 bits** ("10 in 32, plus 2"): 10 codes per word, 5 in each half, so that one mask,
``0x00070007``, takes two codes at once; the two bits left over in each of the three
rows are the bits of the last two codes. 32 codes in 96 bits, exactly 3 bits each::

    bit     31 | 30 28  27 25  24 22  21 19  18 16 | 15 | 14 12  11 9   8 6   5 3   2 0
    row 0   b0 |   9      8      7      6      5   | a0 |   4     3      2     1     0
    row 1   b1 |  19     18     17     16     15   | a1 |  14    13     12    11    10
    row 2   b2 |  29     28     27     26     25   | a2 |  24    23     22    21    20
            slot 31 = b2 b1 b0                 slot 30 = a2 a1 a0

**3 bits, spare** ("10 in 32"): the same words without the two last codes. A tile is
then one row of ``10 * S`` codes in S words, and bits 15 and 31 are 0: 3.2 bits per
code, and nothing to put together. `pack` and `unpack` take it (``spare=True``); the
products do not, as the last pair costs less than the bytes it saves (docs/kernels.md).

References:
  MBQ, arXiv 2412.19509, section 3.3, stores eight 3-bit codes in three bytes; GPTQ
  checkpoints keep 32 codes in three words in order, where two codes straddle words.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

__all__ = [
    "STRIDES",
    "WIDTHS",
    "default_stride",
    "pack",
    "pair",
    "pair_lift",
    "slot",
    "slot_pair",
    "unpack",
    "unpack_slots",
]

WIDTHS = (2, 3, 4, 8)
"""Code widths in bits that have a layout."""

STRIDES = (1, 2, 4, 8, 16)
"""Strides S that have a layout."""

_SLOTS = 32  # codes per word column of a tile


def default_stride(size: int) -> int:
    """The largest stride whose tile divides an axis.

    Args:
      size: Length of the axis in codes, a multiple of 32.

    Returns:
      A member of `STRIDES`.

    Raises:
      ValueError: If `size` is not a positive multiple of 32.

    Examples:
      >>> default_stride(4096), default_stride(64), default_stride(96)
      (16, 2, 1)
    """
    if size <= 0 or size % _SLOTS:
        raise ValueError(f"size must be a positive multiple of {_SLOTS}, got {size}")
    return max(s for s in STRIDES if size % (_SLOTS * s) == 0)


def pack(
    codes: jax.Array,
    *,
    bits: int,
    axis: int,
    stride: int | None = None,
    spare: bool = False,
) -> jax.Array:
    """Packs unsigned codes along one axis.

    Args:
      codes: Integers, any shape; only the low `bits` bits of each are kept.
      bits: Width of a code: 2, 3, 4 or 8.
      axis: The packed axis; its size is a multiple of ``32 * stride``, or of
        ``10 * stride`` if `spare`.
      stride: S of the layout; ``None`` takes `default_stride` of the axis.
      spare: Leave two bits of each word unused, 10 codes of 3 bits per word.

    Returns:
      Words, uint32, of the shape of `codes` with `axis` of size
      ``size * bits / 32``, or ``size / 10`` if `spare`.

    Raises:
      ValueError: If `bits` or `stride` has no layout, the tile does not divide the
        axis, or `spare` comes without a stride or with other than 3 bits.
      TypeError: If `codes` are not integers.

    Examples:
      >>> codes = jnp.arange(32, dtype=jnp.uint8) % 8
      >>> words = pack(codes, bits=3, axis=0)
      >>> words.shape, words.dtype
      ((3,), dtype('uint32'))
      >>> bool((unpack(words, bits=3, axis=0, stride=1) == codes).all())
      True
    """
    codes = jnp.asarray(codes)
    if not jnp.issubdtype(codes.dtype, jnp.integer):
        raise TypeError(f"codes must be integers, got {codes.dtype}")
    axis = _axis(axis, codes.ndim)
    size = codes.shape[axis]
    if spare and stride is None:
        raise ValueError("spare needs a stride, got None")
    stride = default_stride(size) if stride is None else stride
    _check(bits, stride)
    slots, rows = _tile(bits, spare)
    if size % (slots * stride):
        raise ValueError(
            f"axis {axis} of codes has size {size}, not a multiple of the tile "
            f"{slots} * stride = {slots * stride}"
        )
    before, after = codes.shape[:axis], codes.shape[axis + 1 :]
    tiles, shifts = size // (slots * stride), _shifts(bits)
    whole = rows * len(shifts)  # slots whose bits are all in one word
    codes = codes.astype(jnp.uint32) & jnp.uint32(2**bits - 1)
    codes = codes.reshape(*before, tiles, slots, stride, *after)
    at = axis + 1  # the axis of slots, then of word rows
    head = lax.slice_in_dim(codes, 0, whole, axis=at)
    head = head.reshape(*before, tiles, rows, len(shifts), stride, *after)
    head = head << _along(shifts, at + 1, head.ndim)
    words = jnp.sum(head, axis=at + 1, dtype=jnp.uint32)  # disjoint bits: sum is or
    if whole < slots:
        low = lax.slice_in_dim(codes, 30, 31, axis=at)
        high = lax.slice_in_dim(codes, 31, 32, axis=at)
        last = low | (high << jnp.uint32(16))
        spread = last >> _along(np.arange(3, dtype=np.uint32), at, last.ndim)
        words = words | ((spread & jnp.uint32(0x00010001)) << jnp.uint32(15))
    return words.reshape(*before, tiles * rows * stride, *after)


def unpack(
    words: jax.Array, *, bits: int, axis: int, stride: int, spare: bool = False
) -> jax.Array:
    """Inverse of `pack`.

    Args:
      words: uint32, any shape.
      bits: Width of a code: 2, 3, 4 or 8.
      axis: The packed axis.
      stride: S of the layout.
      spare: Whether two bits of each word are unused.

    Returns:
      Codes, uint8, of the shape of `words` with `axis` of size ``size * 32 / bits``,
      or ``size * 10`` if `spare`.

    Raises:
      ValueError: If `bits` or `stride` has no layout, the axis does not hold whole
        tiles, or `spare` comes with other than 3 bits.
      TypeError: If `words` are not uint32.

    Examples:
      >>> print(unpack(jnp.full((8,), 0x03020100, jnp.uint32),
      ...              bits=8, axis=0, stride=1)[:6])
      [0 1 2 3 0 1]
    """
    axis = _axis(axis, words.ndim)
    parts = unpack_slots(words, bits=bits, axis=axis, stride=stride, spare=spare)
    codes = [p.astype(jnp.uint8) for p in parts]
    whole = codes[0] if len(codes) == 1 else jnp.concatenate(codes, axis + 1)
    slots, rows = _tile(bits, spare)
    size = words.shape[axis] // rows * slots
    return whole.reshape(*words.shape[:axis], size, *words.shape[axis + 1 :])


def unpack_slots(
    words: jax.Array, *, bits: int, axis: int, stride: int, spare: bool = False
) -> tuple[jax.Array, ...]:
    """Unpacked codes by slot, in one piece, or two for 3 bits.

    Each piece is one elementwise expression of the words, so that a compiler fuses it
    into what reads it; joined along the slots, the pieces are what `unpack` returns.

    Args:
      words: uint32, any shape.
      bits: Width of a code: 2, 3, 4 or 8.
      axis: The packed axis.
      stride: S of the layout.
      spare: Whether two bits of each word are unused.

    Returns:
      uint32 arrays with `axis` replaced by ``(tiles, slots, stride)``, where slots is
      32, or 30 and then 2 for 3 bits, or 10 if `spare`.

    Raises:
      ValueError: If `bits` or `stride` has no layout, the axis does not hold whole
        tiles, or `spare` comes with other than 3 bits.
      TypeError: If `words` are not uint32.

    Examples:
      >>> words = jnp.zeros((6, 5), jnp.uint32)
      >>> [p.shape for p in unpack_slots(words, bits=3, axis=0, stride=2)]
      [(1, 30, 2, 5), (1, 2, 2, 5)]
    """
    _check(bits, stride)
    if words.dtype != jnp.uint32:
        raise TypeError(f"words must be uint32, got {words.dtype}")
    axis = _axis(axis, words.ndim)
    size = words.shape[axis]
    slots, count = _tile(bits, spare)
    if size % (count * stride):
        raise ValueError(
            f"axis {axis} of words has size {size}, not a multiple of "
            f"{'' if spare else 'bits * '}stride = {count * stride}"
        )
    before, after = words.shape[:axis], words.shape[axis + 1 :]
    tiles = size // (count * stride)
    rows = words.reshape(*before, tiles, count, 1, stride, *after)
    at = len(before) + 1  # the axis of word rows
    shifts = _shifts(bits)
    head = (rows >> _along(shifts, at + 1, rows.ndim)) & jnp.uint32(2**bits - 1)
    head = head.reshape(*before, tiles, count * len(shifts), stride, *after)
    if count * len(shifts) == slots:
        return (head,)
    first, second, third = (lax.index_in_dim(rows, r, at, False) for r in range(3))
    last = _last_pair(first, second, third)
    halves = np.array([0, 16], np.uint32)
    return head, (last >> _along(halves, at, last.ndim)) & jnp.uint32(7)


def slot_pair(index: int, *, bits: int) -> tuple[int, int]:
    """Where a slot is among the pairs of a tile.

    Slots come in 16 pairs: the codes of a pair are 16 bits apart, in the two halves of
    a word, so that one shift and one mask take both.

    Args:
      index: Slot, 0 to 31.
      bits: Width of a code: 2, 3, 4 or 8.

    Returns:
      The pair, 0 to 15, and the half, 0 for the low one.

    Raises:
      ValueError: If `bits` has no layout or `index` is not a slot.

    Examples:
      >>> slot_pair(0, bits=4), slot_pair(4, bits=4), slot_pair(31, bits=3)
      ((0, 0), (0, 1), (15, 1))
    """
    _check(bits, 1)
    if not 0 <= index < _SLOTS:
        raise ValueError(f"index must be a slot, 0 to {_SLOTS - 1}, got {index}")
    half_word = len(_shifts(bits)) // 2
    row, place = divmod(index, 2 * half_word)
    if row == bits:  # the last two slots of 3 bits
        return 15, place
    half, at = divmod(place, half_word)
    return row * half_word + at, half


def pair_lift(index: int, *, bits: int, room: int) -> int:
    """How far up the codes of a pair may stay, so that neighbors share a shift.

    Args:
      index: Pair, 0 to 15.
      bits: Width of a code: 2, 3, 4 or 8.
      room: Bits that a lifted code may occupy, at least `bits`.

    Returns:
      Bits below the code.

    Examples:
      >>> [pair_lift(i, bits=3, room=7) for i in range(5)]
      [0, 3, 0, 3, 0]
    """
    if bits == 3 and index == 15:
        return 0
    at = index % (len(_shifts(bits)) // 2)
    return bits * (at % (room // bits))


def pair(
    rows: Sequence[jax.Array], index: int, *, bits: int, lift: int = 0
) -> jax.Array:
    """The codes of two slots at once, from the word rows of a tile.

    Only shifts and masks of whole rows: usable on register tiles inside a kernel.

    Args:
      rows: The `bits` word rows of a tile, uint32 arrays of one shape.
      index: Pair, 0 to 15, as `slot_pair` counts them.
      bits: Width of a code: 2, 3, 4 or 8.
      lift: Bits to leave below each code, at most what `pair_lift` says.

    Returns:
      uint32, of the shape of a row: one code in the low half, one in the high half,
      both times ``2**lift``.

    Raises:
      ValueError: If `bits` has no layout, `index` is not a pair, or the number of
        rows is not `bits`.

    Examples:
      >>> rows = [jnp.uint32(0x8765_4321)] * 4
      >>> [hex(pair(rows, i, bits=4)) for i in (0, 1, 3)]
      ['0x50001', '0x60002', '0x80004']
    """
    _check(bits, 1)
    if not 0 <= index < _SLOTS // 2:
        raise ValueError(f"index must be a pair, 0 to {_SLOTS // 2 - 1}, got {index}")
    if len(rows) != bits:
        raise ValueError(f"rows must be the {bits} word rows, got {len(rows)}")
    if bits == 3 and index == 15:
        return _last_pair(*rows)
    row, at = divmod(index, len(_shifts(bits)) // 2)
    mask = jnp.uint32((2**bits - 1) * 0x00010001 << lift)
    shift = bits * at - lift
    return (rows[row] >> jnp.uint32(shift) if shift else rows[row]) & mask


def slot(rows: Sequence[jax.Array], index: int, *, bits: int) -> jax.Array:
    """The codes of one slot, from the word rows of a tile.

    Args:
      rows: The `bits` word rows of a tile, uint32 arrays of one shape.
      index: Slot, 0 to 31.
      bits: Width of a code: 2, 3, 4 or 8.

    Returns:
      uint32, of the shape of a row, in ``[0, 2**bits)``.

    Raises:
      ValueError: If `bits` has no layout, `index` is not a slot, or the number of
        rows is not `bits`.

    Examples:
      >>> rows = [jnp.uint32(0o4321), jnp.uint32(0), jnp.uint32(1 << 15)]
      >>> [int(slot(rows, i, bits=3)) for i in (0, 1, 2, 3, 30)]
      [1, 2, 3, 4, 4]
    """
    _check(bits, 1)
    if not 0 <= index < _SLOTS:
        raise ValueError(f"index must be a slot, 0 to {_SLOTS - 1}, got {index}")
    if len(rows) != bits:
        raise ValueError(f"rows must be the {bits} word rows, got {len(rows)}")
    mask = jnp.uint32(2**bits - 1)
    shifts = _shifts(bits)
    row, place = divmod(index, len(shifts))
    if row < bits:
        return (rows[row] >> shifts[place]) & mask
    last = _last_pair(*rows)
    return last & mask if index == 30 else last >> jnp.uint32(16)


def _shifts(bits: int) -> np.ndarray:
    """Bit of each whole code of a word, uint32."""
    if bits == 3:
        low = 3 * np.arange(5, dtype=np.uint32)
        return np.concatenate([low, low + np.uint32(16)])
    return np.arange(0, 32, bits, dtype=np.uint32)


def _tile(bits: int, spare: bool) -> tuple[int, int]:
    """Slots of a tile, and its word rows."""
    if not spare:
        return _SLOTS, bits
    if bits != 3:
        raise ValueError(f"spare is for codes of 3 bits, got bits={bits}")
    return 10, 1


def _last_pair(first, second, third) -> jax.Array:
    """Slots 30 (low half) and 31 (high half) of three 3-bit word rows."""
    return (
        ((first >> jnp.uint32(15)) & jnp.uint32(0x00010001))
        | ((second >> jnp.uint32(14)) & jnp.uint32(0x00020002))
        | ((third >> jnp.uint32(13)) & jnp.uint32(0x00040004))
    )


def _along(values: np.ndarray, axis: int, ndim: int) -> np.ndarray:
    """`values` along one axis of `ndim`, size 1 elsewhere."""
    shape = [1] * ndim
    shape[axis] = len(values)
    return values.reshape(shape)


def _axis(axis: int, ndim: int) -> int:
    if not -ndim <= axis < ndim:
        raise ValueError(f"axis {axis} is out of range for an array of {ndim} axes")
    return axis % ndim


def _check(bits: int, stride: int) -> None:
    if bits not in WIDTHS:
        raise ValueError(f"bits must be one of {WIDTHS}, got {bits}")
    if stride not in STRIDES:
        raise ValueError(f"stride must be one of {STRIDES}, got {stride}")
