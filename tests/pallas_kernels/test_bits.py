"""Packed layouts: against a bit-by-bit NumPy reference, and round trips."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels import bits

CASES = list(itertools.product(bits.WIDTHS, bits.STRIDES))
pack = jax.jit(bits.pack, static_argnames=("bits", "axis", "stride"))
unpack = jax.jit(bits.unpack, static_argnames=("bits", "axis", "stride"))


def place(index: int, width: int) -> list[tuple[int, int]]:
    """(word row, bit) of each bit of slot `index`, straight from the drawing."""
    if width == 3:
        if index >= 30:
            return [(row, 15 if index == 30 else 31) for row in range(3)]
        row, t = divmod(index, 10)
        start = 3 * t if t < 5 else 16 + 3 * (t - 5)
        return [(row, start + b) for b in range(3)]
    row, t = divmod(index, 32 // width)
    return [(row, width * t + b) for b in range(width)]


def reference_pack(codes: np.ndarray, width: int, stride: int) -> np.ndarray:
    """Packs a 1-D array one bit at a time."""
    tiles = len(codes) // (32 * stride)
    words = np.zeros(tiles * width * stride, np.uint32)
    for k, code in enumerate(codes):
        tile, rest = divmod(k, 32 * stride)
        index, column = divmod(rest, stride)
        for b, (row, bit) in enumerate(place(index, width)):
            word = tile * width * stride + row * stride + column
            words[word] |= np.uint32(((int(code) >> b) & 1) << bit)
    return words


def random_codes(shape, width, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**width, shape).astype(np.uint8)


@pytest.mark.parametrize(("width", "stride"), CASES)
def test_equals_the_drawing(width, stride):
    codes = random_codes(3 * 32 * stride, width)
    words = pack(jnp.asarray(codes), bits=width, axis=0, stride=stride)
    np.testing.assert_array_equal(words, reference_pack(codes, width, stride))


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize(("width", "stride"), [(2, 16), (3, 1), (3, 4), (4, 2), (8, 8)])
def test_round_trip_on_every_axis(axis, width, stride):
    shape = [2, 3, 2]
    shape[axis] = 2 * 32 * stride
    codes = random_codes(shape, width, seed=width * stride)
    words = pack(jnp.asarray(codes), bits=width, axis=axis, stride=stride)
    assert words.dtype == jnp.uint32
    assert words.size * 32 == codes.size * width  # every bit is a code's
    back = unpack(words, bits=width, axis=axis, stride=stride)
    assert back.dtype == jnp.uint8
    np.testing.assert_array_equal(back, codes)


@pytest.mark.parametrize("width", bits.WIDTHS)
def test_words_round_trip(width):
    # Every word is the packing of something: no bit is lost or ignored.
    rng = np.random.default_rng(0)
    words = rng.integers(0, 2**32, (4 * width, 3), dtype=np.uint64).astype(np.uint32)
    codes = unpack(jnp.asarray(words), bits=width, axis=0, stride=4)
    np.testing.assert_array_equal(pack(codes, bits=width, axis=0, stride=4), words)


@pytest.mark.parametrize(("width", "stride"), CASES)
def test_slot_equals_unpack(width, stride):
    codes = random_codes((32 * stride, 2), width)
    words = pack(jnp.asarray(codes), bits=width, axis=0, stride=stride)
    rows = list(words.reshape(width, stride, 2))
    got = jax.jit(
        lambda rows: jnp.stack([bits.slot(rows, i, bits=width) for i in range(32)])
    )(rows)
    np.testing.assert_array_equal(got.reshape(codes.shape), codes)


def test_two_codes_per_mask():
    # The point of the 3-bit layout: slots t and t + 5 of a row come out together.
    codes = random_codes(32, 3)
    word = int(pack(jnp.asarray(codes), bits=3, axis=0)[0])
    for t in range(5):
        pair = (word >> (3 * t)) & 0x00070007
        assert (pair & 7, pair >> 16) == (codes[t], codes[t + 5])


def test_no_gather_is_compiled():
    words = jnp.zeros((2, 12, 5), jnp.uint32)
    text = unpack.lower(words, bits=3, axis=1, stride=2).as_text()
    assert "shift_right_logical" in text
    assert "gather" not in text


def test_transforms_and_high_bits():
    codes = random_codes((4, 64), 3)
    packed = jax.vmap(lambda c: pack(c, bits=3, axis=0))(jnp.asarray(codes))
    np.testing.assert_array_equal(
        packed, jax.jit(lambda c: pack(c, bits=3, axis=1))(codes)
    )
    # Only the low bits are kept, so a fault model may flip any bit of an int32.
    wide = jnp.asarray(codes, jnp.int32) - 8
    np.testing.assert_array_equal(pack(wide, bits=3, axis=1), packed)


@pytest.mark.parametrize(
    ("size", "stride"), [(32, 1), (64, 2), (96, 1), (512, 16), (1024, 16), (18944, 16)]
)
def test_default_stride(size, stride):
    assert bits.default_stride(size) == stride


@pytest.mark.parametrize("stride", [1, 2, 16])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_ten_in_a_word(stride, axis):
    """Code ``i * S + j`` of a tile is at bit 3 i (+1 in the high half) of word j."""
    rng = np.random.default_rng(stride)
    shape = [2, 3, 4]
    shape[axis] = 20 * stride
    codes = rng.integers(0, 8, shape, np.uint8)
    words = jax.jit(
        lambda c: bits.pack(c, bits=3, axis=axis, stride=stride, spare=True)
    )(codes)
    first, want = np.moveaxis(codes, axis, 0), []
    for tile in range(2):
        for column in range(stride):
            want.append(0)
            for i in range(10):
                code = first[(tile * 10 + i) * stride + column].astype(np.uint32)
                want[-1] = want[-1] | code << np.uint32(3 * i + (i >= 5))
    np.testing.assert_array_equal(np.moveaxis(words, axis, 0), np.stack(want))
    assert not (np.asarray(words) & 0x80008000).any()
    back = bits.unpack(words, bits=3, axis=axis, stride=stride, spare=True)
    assert back.dtype == jnp.uint8
    np.testing.assert_array_equal(back, codes)


def test_ten_in_a_word_by_hand():
    codes = jnp.array([1, 2, 3, 4, 5, 6, 7, 0, 1, 2], jnp.uint8)
    (word,) = bits.pack(codes, bits=3, axis=0, stride=1, spare=True)
    # octal digits from the top: 2 1 0 7 6, a spare bit, 5 4 3 2 1, a spare bit
    assert int(word) == (0o21076 << 16) | 0o54321


def test_errors_of_ten_in_a_word():
    codes = jnp.zeros((40,), jnp.uint8)
    with pytest.raises(ValueError, match="spare is for codes of 3 bits, got bits=4"):
        bits.pack(codes, bits=4, axis=0, stride=1, spare=True)
    with pytest.raises(ValueError, match="spare needs a stride"):
        bits.pack(codes, bits=3, axis=0, spare=True)
    with pytest.raises(ValueError, match="size 40, not a multiple of .* 10 .* = 160"):
        bits.pack(codes, bits=3, axis=0, stride=16, spare=True)
    with pytest.raises(ValueError, match="size 3, not a multiple of stride = 2"):
        bits.unpack(jnp.zeros(3, jnp.uint32), bits=3, axis=0, stride=2, spare=True)
    with pytest.raises(ValueError, match="spare is for codes of 3 bits"):
        bits.unpack(jnp.zeros(3, jnp.uint32), bits=2, axis=0, stride=1, spare=True)


def test_errors_name_the_value():
    codes = jnp.zeros((64,), jnp.uint8)
    with pytest.raises(ValueError, match="48"):
        bits.default_stride(48)
    with pytest.raises(ValueError, match="bits must be one of .* got 5"):
        bits.pack(codes, bits=5, axis=0)
    with pytest.raises(ValueError, match="stride must be one of .* got 3"):
        bits.pack(codes, bits=4, axis=0, stride=3)
    with pytest.raises(ValueError, match="size 64.*128"):
        bits.pack(codes, bits=4, axis=0, stride=4)
    with pytest.raises(ValueError, match="axis 1 is out of range"):
        bits.pack(codes, bits=4, axis=1)
    with pytest.raises(TypeError, match="float32"):
        bits.pack(jnp.zeros(32), bits=4, axis=0)
    with pytest.raises(TypeError, match="int32"):
        bits.unpack(jnp.zeros(3, jnp.int32), bits=3, axis=0, stride=1)
    with pytest.raises(ValueError, match="size 4.*3"):
        bits.unpack(jnp.zeros(4, jnp.uint32), bits=3, axis=0, stride=1)
    with pytest.raises(ValueError, match="got 32"):
        bits.slot([jnp.uint32(0)] * 3, 32, bits=3)
    with pytest.raises(ValueError, match="got 2"):
        bits.slot([jnp.uint32(0)] * 2, 0, bits=3)
