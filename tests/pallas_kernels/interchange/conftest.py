"""A stream of codes as one long integer: the slow reference of these tests."""

import numpy as np
import pytest


def long_integer_words(codes, bits: int, padded: bool) -> np.ndarray:
    """Words of a one-dimensional stream, from Python's integers."""
    codes = [int(c) for c in codes]
    if padded:
        run = 32 // bits
        parts = [codes[i : i + run] for i in range(0, len(codes), run)]
        return np.concatenate([long_integer_words(p, bits, False) for p in parts])
    total = sum(c << (bits * k) for k, c in enumerate(codes))
    count = -(-bits * len(codes) // 32)
    return np.frombuffer(total.to_bytes(4 * count, "little"), "<u4")


@pytest.fixture
def words_along():
    """``words_along(codes, bits, axis, padded=False)``: uint32, slowly."""

    def pack(codes, bits, axis, padded=False):
        return np.apply_along_axis(long_integer_words, axis, codes, bits, padded)

    return pack


@pytest.fixture
def random_codes():
    """``random_codes(shape, bits, seed=0)``: uint8."""

    def draw(shape, bits, seed=0):
        rng = np.random.default_rng([seed, bits])
        return rng.integers(0, 2**bits, shape).astype(np.uint8)

    return draw


@pytest.fixture
def assert_same():
    """``assert_same(a, b)``: tuples of the same arrays, dtypes and absences."""

    def check(a, b):
        assert type(a) is type(b)
        for name, x, y in zip(a._fields, a, b, strict=True):
            assert (x is None) == (y is None), name
            if x is not None:
                assert x.dtype == y.dtype, name
                np.testing.assert_array_equal(x, y, err_msg=name)

    return check
