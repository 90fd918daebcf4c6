"""AutoAWQ's layout: against files of its own, by hand, and round trips."""

import jax
import numpy as np
import pytest

from pallas_kernels.interchange import (
    AutoAWQ,
    Codes,
    from_autoawq,
    from_strided,
    to_autoawq,
    to_strided,
)

ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def reference_words(codes: np.ndarray) -> np.ndarray:
    """Nibble i of a word is output ``ORDER[i]`` of eight."""
    words = np.zeros((codes.shape[0], codes.shape[1] // 8), np.uint32)
    for column in range(codes.shape[1]):
        place = ORDER.index(column % 8)
        words[:, column // 8] |= codes[:, column].astype(np.uint32) << (4 * place)
    return words.view(np.int32)


def random_weight(seed: int) -> Codes:
    rng = np.random.default_rng(seed)
    groups, per_group, n = rng.integers(1, 5, 3)
    shape, grouped = (groups * per_group, 8 * n), (groups, 8 * n)
    return Codes(
        rng.integers(0, 16, shape).astype(np.uint8),
        rng.normal(size=grouped).astype(np.float16),
        rng.integers(0, 16, grouped).astype(np.uint8),
    )


def test_a_file_of_autoawq(golden, assert_same):
    file = np.load(golden("awq_linear.npz"))
    packed = AutoAWQ(file["qweight"], file["qzeros"], file["scales"])
    got = from_autoawq(packed)
    np.testing.assert_array_equal(got.codes, file["codes"])
    np.testing.assert_array_equal(got.zero, file["zeros"])
    assert_same(to_autoawq(got), packed)
    group = got.codes.shape[0] // got.scale.shape[0]
    scale, zero = (np.repeat(a, group, 0) for a in (got.scale, got.zero))
    steps = np.asarray(got.codes, np.float16) - zero.astype(np.float16)
    np.testing.assert_array_equal(steps * scale, file["dequant_fp16"])


def test_by_hand():
    codes = np.array([[1, 2, 3, 4, 5, 6, 7, 8]], np.uint8)
    packed = to_autoawq(Codes(codes, np.ones((1, 8), np.float16), 16 - codes))
    assert int(packed.qweight[0, 0]) == 0x86427531 - 2**32
    assert int(packed.qzeros[0, 0]) == 0x8ACE9BDF - 2**32


@pytest.mark.parametrize("seed", range(2))
def test_random_shapes(seed, assert_same):
    weight = random_weight(seed)
    packed = to_autoawq(weight)
    np.testing.assert_array_equal(packed.qweight, reference_words(weight.codes))
    np.testing.assert_array_equal(packed.qzeros, reference_words(weight.zero))
    assert_same(from_autoawq(packed), weight)
    unsigned = packed._replace(qweight=np.asarray(packed.qweight).view(np.uint32))
    assert_same(from_autoawq(unsigned), weight)
    strided = to_strided(from_autoawq(packed), bits=4, stride=2)
    back = from_strided(strided, bits=4, stride=2, size=len(weight.codes))
    assert_same(to_autoawq(back), packed)


def test_symmetric_weights_have_zero_points_of_8():
    weight = random_weight(0)._replace(zero=None)
    assert (from_autoawq(to_autoawq(weight)).zero == 8).all()


def test_jit_and_vmap(assert_same):
    weight = random_weight(1)
    packed = jax.jit(to_autoawq)(weight)
    assert_same(packed, to_autoawq(weight))
    assert_same(jax.jit(from_autoawq)(packed), weight)
    two = jax.tree.map(lambda *a: np.stack(a), packed, packed)
    for layer in range(2):
        got = jax.tree.map(lambda a: a[layer], jax.vmap(from_autoawq)(two))  # noqa: B023
        assert_same(got, weight)


def test_errors():
    weight = Codes(np.zeros((4, 16), np.uint8), np.ones((2, 16), np.float16))
    packed = to_autoawq(weight)
    with pytest.raises(ValueError, match=r"qzeros has shape \(1, 2\), expected \(2, 2"):
        from_autoawq(packed._replace(qzeros=packed.qzeros[:1]))
    with pytest.raises(ValueError, match=r"scales of shape \(2, 8\).*\(4, 16\)"):
        from_autoawq(packed._replace(scales=packed.scales[:, :8]))
    with pytest.raises(TypeError, match="qweight .* got int8"):
        from_autoawq(packed._replace(qweight=packed.qweight.astype(np.int8)))
    with pytest.raises(TypeError, match="must be float16.*float32"):
        to_autoawq(weight._replace(scale=np.ones((2, 16), np.float32)))
    with pytest.raises(ValueError, match=r"multiple of 8.*\(4, 12\)"):
        to_autoawq(Codes(weight.codes[:, :12], weight.scale[:, :12]))
    with pytest.raises(ValueError, match="order"):
        to_autoawq(weight._replace(order=np.arange(4, dtype=np.int32)))
