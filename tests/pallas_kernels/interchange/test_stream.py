"""Streams of codes: against Python's long integers, and round trips."""

import numpy as np
import pytest

from pallas_kernels.interchange import stream


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("bits", range(2, 9))
def test_equals_a_long_integer(bits, padded, random_codes, words_along):
    for axis, shape in enumerate([(37, 2), (3, 64)]):
        codes = random_codes(shape, bits)
        size = shape[axis]
        words = stream.pack(codes, bits=bits, axis=axis, padded=padded)
        assert words.dtype == np.uint32
        assert words.shape[axis] == stream.length(size, bits=bits, padded=padded)
        np.testing.assert_array_equal(words, words_along(codes, bits, axis, padded))
        back = stream.unpack(words, bits=bits, axis=axis, size=size, padded=padded)
        assert back.dtype == np.uint8
        np.testing.assert_array_equal(back, codes)


def test_three_bits_by_hand():
    # Codes 0 to 11, modulo 8, lowest bits on the right; code 10 is 010.
    codes = np.arange(12, dtype=np.uint8) % 8
    dense = [0b10_001_000_111_110_101_100_011_010_001_000, 0b011_0]
    padded = [0b00_001_000_111_110_101_100_011_010_001_000, 0b011_010]
    np.testing.assert_array_equal(stream.pack(codes, bits=3, axis=0), dense)
    np.testing.assert_array_equal(
        stream.pack(codes, bits=3, axis=0, padded=True), padded
    )


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_widths_that_divide_a_word_never_straddle(bits, random_codes):
    codes = random_codes((45,), bits)
    np.testing.assert_array_equal(
        stream.pack(codes, bits=bits, axis=0),
        stream.pack(codes, bits=bits, axis=0, padded=True),
    )


def test_only_low_bits_are_kept(random_codes):
    codes = random_codes((40,), 8)
    np.testing.assert_array_equal(
        stream.pack(codes, bits=5, axis=-1), stream.pack(codes & 31, bits=5, axis=-1)
    )


def test_no_gather_or_scatter_is_compiled():
    codes = np.zeros((96, 5), np.uint8)
    words = np.zeros((9, 5), np.uint32)
    for text in (
        stream.pack.lower(codes, bits=3, axis=0).as_text(),
        stream.unpack.lower(words, bits=3, axis=0, size=96).as_text(),
    ):
        assert "shift" in text
        assert "gather" not in text and "scatter" not in text
