"""compressed-tensors' layout: against words of its own, by hand, and round trips."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels.interchange import (
    Codes,
    CompressedTensors,
    from_compressed_tensors,
    from_strided,
    to_compressed_tensors,
    to_strided,
)


def random_weight(seed: int, bits: int) -> Codes:
    """At least two groups, each of inputs drawn at random."""
    rng = np.random.default_rng(seed)  # shapes of a seed are those of every width
    groups, per_group, columns = (int(i) for i in rng.integers(2, 12, 3))
    order = np.sort(rng.permutation(groups * per_group).reshape(groups, -1), 1).ravel()
    return Codes(
        rng.integers(0, 2**bits, (groups * per_group, columns)).astype(np.uint8),
        rng.normal(size=(groups, columns)).astype(jnp.bfloat16),
        rng.integers(0, 2**bits, (groups, columns)).astype(np.uint8),
        order.astype(np.int32),
    )


@pytest.mark.parametrize("version", ["dense", "padded"])
@pytest.mark.parametrize("bits", range(2, 9))
def test_words_of_compressed_tensors(bits, version, golden, assert_same):
    file = np.load(golden("packed_layouts.npz"))
    codes, zeros = file[f"ct_{bits}/codes"], file[f"ct_{bits}/zeros"]
    padded = version == "padded"
    # 37 inputs are not groups of one size: the words of codes and of zero points are
    # read apart.
    words = file[f"ct_{bits}_{version}/weight_packed"]
    scale = np.ones((len(codes), 1), np.float32)
    packed = CompressedTensors(words, scale, np.array(codes.shape))
    got = from_compressed_tensors(packed, bits=bits, padded=padded)
    np.testing.assert_array_equal(got.codes, codes.T)
    assert got.zero is None and got.order is None
    assert_same(to_compressed_tensors(got, bits=bits, padded=padded), packed)

    weight = Codes(zeros.T, np.ones(zeros.T.shape, np.float32), zeros.T)
    zero_point = to_compressed_tensors(weight, bits=bits, padded=padded)[3]
    assert zero_point.dtype == np.int32
    np.testing.assert_array_equal(
        zero_point, file[f"ct_{bits}_{version}/weight_zero_point"]
    )


@pytest.mark.parametrize("bits", [3, 4])
def test_a_wide_matrix_of_compressed_tensors(bits, golden):
    from support import golden_rule

    file = np.load(golden("awq_linear.npz"))
    words, seed = (
        file[f"ct_w{bits}_packed"],
        json.loads(bytes(file["meta_json"]))["seed"],
    )
    shape = (24, 32 * words.shape[1] // bits)
    packed = CompressedTensors(words, np.ones((24, 1), np.float32), np.array(shape))
    codes = golden_rule.ints(f"ct_codes_{bits}", seed, shape, 2**bits)
    got = from_compressed_tensors(packed, bits=bits)
    np.testing.assert_array_equal(got.codes, codes.T)


def test_signed_codes_by_hand():
    # Codes -4, -1, 0, 3 of 3 bits are stored as 0, 3, 4, 7.
    stored = np.array([[0, 3, 4, 7]], np.uint8).T
    packed = to_compressed_tensors(Codes(stored, np.ones((1, 1), np.float32)), bits=3)
    assert int(packed.weight_packed[0, 0]) == 0b111_100_011_000
    np.testing.assert_array_equal(packed.weight_shape, [1, 4])
    assert packed.weight_shape.dtype == np.int64
    assert packed.weight_zero_point is None and packed.weight_g_idx is None


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("bits", range(2, 9))
def test_random_shapes(bits, padded, words_along, assert_same):
    how = {"bits": bits, "padded": padded}
    weight = random_weight(padded, bits)
    packed = to_compressed_tensors(weight, **how)
    rows = np.empty_like(weight.codes)
    rows[weight.order] = weight.codes
    for words, codes, axis in (
        (packed.weight_packed, rows.T, 1),
        (packed.weight_zero_point, weight.zero.T, 0),
    ):
        assert words.dtype == np.int32
        np.testing.assert_array_equal(
            np.asarray(words).view(np.uint32), words_along(codes, bits, axis, padded)
        )
    assert_same(from_compressed_tensors(packed, **how), weight)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_through_the_words_of_the_kernels(bits, assert_same):
    weight = random_weight(7, bits)
    packed = to_compressed_tensors(weight, bits=bits)
    strided = to_strided(
        from_compressed_tensors(packed, bits=bits), bits=bits, stride=2
    )
    back = from_strided(strided, bits=bits, stride=2, size=len(weight.codes))
    assert_same(to_compressed_tensors(back, bits=bits), packed)


def test_an_index_that_was_not_set(assert_same):
    weight = random_weight(0, 4)._replace(order=None)
    packed = to_compressed_tensors(weight, bits=4)
    unset = packed._replace(
        weight_g_idx=np.full(int(packed.weight_shape[1]), -1, np.int32)
    )
    assert_same(
        from_compressed_tensors(unset, bits=4), from_compressed_tensors(packed, bits=4)
    )


def test_jit(assert_same):
    weight = random_weight(1, 3)
    packed = to_compressed_tensors(weight, bits=3)
    traced = jax.jit(lambda w: to_compressed_tensors(w, bits=3))(weight)
    assert_same(traced._replace(weight_shape=packed.weight_shape), packed)

    @jax.jit
    def read(words, scale, zero):
        given = CompressedTensors(words, scale, packed.weight_shape, zero)
        return from_compressed_tensors(given, bits=3)

    eager = from_compressed_tensors(packed._replace(weight_g_idx=None), bits=3)
    assert_same(read(*packed[:2], packed.weight_zero_point), eager)
    with pytest.raises(TypeError, match="weight_shape .* Close over it"):
        jax.jit(lambda p: from_compressed_tensors(p, bits=3))(packed)


def test_errors():
    weight = Codes(
        np.zeros((320, 11), np.uint8),
        np.ones((2, 11), np.float32),
        np.zeros((2, 11), np.uint8),
    )
    packed = to_compressed_tensors(weight, bits=3)

    def read(**changes):
        return from_compressed_tensors(packed._replace(**changes), bits=3)

    for function, given in (
        (to_compressed_tensors, weight),
        (from_compressed_tensors, packed),
    ):
        with pytest.raises(ValueError, match="bits must be 2 to 8, got 9"):
            function(given, bits=9)
    with pytest.raises(
        ValueError, match=r"\(11, 30\), expected \(11, 32\); padded=Fal"
    ):
        from_compressed_tensors(packed, bits=3, padded=True)
    with pytest.raises(ValueError, match=r"\(11, 7\), expected \(11, 30\)$"):
        read(weight_packed=packed.weight_packed[:, :7])
    with pytest.raises(ValueError, match=r"weight_scale of shape \(11,\).*\(11, 320\)"):
        read(weight_scale=packed.weight_scale[:, 0])
    with pytest.raises(ValueError, match=r"weight_scale of shape \(11, 3\)"):
        read(weight_scale=np.ones((11, 3), np.float32))
    with pytest.raises(ValueError, match=r"weight_zero_point .*\(2, 1\), .*\(2, 2\)"):
        read(weight_zero_point=packed.weight_zero_point[:, :1])
    with pytest.raises(TypeError, match="weight_zero_point .* got int8"):
        read(weight_zero_point=np.zeros((11, 2), np.int8))
    with pytest.raises(ValueError, match="weight_shape .*got"):
        read(weight_shape=np.array([11]))
    with pytest.raises(ValueError, match=r"g_idx .*\(2,\), expected \(320,\)"):
        read(weight_g_idx=np.zeros(2, np.int32))
