"""Codes to the words that the kernels read, and back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels import bits as layouts
from pallas_kernels.interchange import Codes, Strided, from_strided, to_strided


@pytest.mark.parametrize(
    ("size", "bits", "stride"), [(80, 2, 1), (513, 3, 16), (128, 4, 2), (32, 8, 4)]
)
def test_round_trip(size, bits, stride, random_codes, assert_same):
    weight = Codes(
        random_codes((size, 5), bits),
        np.ones((1, 5), jnp.bfloat16),
        random_codes((1, 5), bits),
        np.arange(size, dtype=np.int32)[::-1],
    )
    strided = to_strided(weight, bits=bits, stride=stride)
    codes = layouts.unpack(strided.packed, bits=bits, axis=0, stride=stride)
    np.testing.assert_array_equal(codes[:size], weight.codes)
    assert not codes[size:].any() and len(codes) - size < 32 * stride
    back = from_strided(strided, bits=bits, stride=stride, size=size)
    assert_same(back, weight)


def test_default_stride_pads_to_32_only(random_codes):
    for size, stride in ((512, 16), (60, 2)):
        weight = Codes(random_codes((size, 2), 3), np.ones((1, 2), np.float32))
        np.testing.assert_array_equal(
            to_strided(weight, bits=3).packed,
            to_strided(weight, bits=3, stride=stride).packed,
        )


def test_jit(assert_same, random_codes):
    weight = Codes(random_codes((64, 3), 3), np.ones((2, 3), np.float32))
    strided = jax.jit(lambda w: to_strided(w, bits=3, stride=2))(weight)
    assert_same(strided, to_strided(weight, bits=3))
    assert_same(jax.jit(lambda w: from_strided(w, bits=3, stride=2))(strided), weight)


def test_errors():
    strided = Strided(jnp.zeros((12, 4), jnp.uint32), jnp.ones((2, 4)))
    for size in (129, 96):
        with pytest.raises(ValueError, match=rf"\(12, 4\) holds 128 .* size {size}"):
            from_strided(strided, bits=3, stride=1, size=size)
    with pytest.raises(ValueError, match=r"\(2, 4\).*\(127, 4\)"):
        from_strided(strided, bits=3, stride=1, size=127)
    with pytest.raises(TypeError, match="int32"):
        from_strided(
            strided._replace(packed=strided.packed.view("i4")), bits=3, stride=1
        )
    with pytest.raises(ValueError, match="bits must be one of .* got 5"):
        to_strided(Codes(np.zeros((32, 1), np.uint8), np.ones((1, 1), "f4")), bits=5)
