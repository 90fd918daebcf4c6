"""GPTQ's layout: against files of AutoGPTQ, by hand, and round trips."""

import json

import jax
import numpy as np
import pytest

from pallas_kernels.interchange import (
    GPTQ,
    Codes,
    from_gptq,
    from_strided,
    to_gptq,
    to_strided,
)

WIDTHS = (2, 3, 4, 8)
FILES = [
    *(("gptq_linear.npz", f"w{b}{kind}", b) for b in (3, 4) for kind in ("", "_act")),
    ("gptq_linear.npz", "w3_bigblock", 3),
    *(("packed_layouts.npz", f"gptq_{b}{k}", b) for b in (2, 8) for k in ("", "_act")),
]


def dense(weight: Codes) -> np.ndarray:
    """The weight in the order of its codes, float32."""
    group = weight.codes.shape[0] // weight.scale.shape[0]
    codes, scale, zero = (np.asarray(a, np.float32) for a in weight[:3])
    return (codes - np.repeat(zero, group, 0)) * np.repeat(scale, group, 0)


def random_weight(seed: int, bits: int) -> Codes:
    """At least two groups, each of inputs drawn at random."""
    rng = np.random.default_rng(seed)  # shapes of a seed are those of every width
    groups, tiles, n = (int(i) for i in rng.integers([2, 1, 1], 4))
    size, columns = 32 * groups * tiles, 32 * n
    order = np.sort(rng.permutation(size).reshape(groups, -1), 1).ravel()
    return Codes(
        rng.integers(0, 2**bits, (size, columns)).astype(np.uint8),
        rng.normal(size=(groups, columns)).astype(np.float16),
        rng.integers(0, 2**bits, (groups, columns)).astype(np.uint8),
        order.astype(np.int32),
    )


def in_place(weight: Codes) -> np.ndarray:
    """Codes in the order of the inputs."""
    codes = np.empty_like(weight.codes)
    codes[weight.order] = weight.codes
    return codes


@pytest.mark.parametrize(("name", "prefix", "bits"), FILES)
def test_files_of_autogptq(name, prefix, bits, golden, assert_same):
    file = np.load(golden(name))
    packed = GPTQ(*(file[f"{prefix}/{f}"] for f in GPTQ._fields))
    got = from_gptq(packed, bits=bits)
    assert (got.order is not None) == prefix.endswith("_act")
    order = np.arange(len(got.codes)) if got.order is None else np.asarray(got.order)
    np.testing.assert_array_equal(got.codes, file[f"{prefix}/codes"][order])
    np.testing.assert_array_equal(got.zero, file[f"{prefix}/zeros"])
    assert_same(to_gptq(got, bits=bits), packed)
    if f"{prefix}/dense" in file:  # the original's, decoded
        np.testing.assert_array_equal(dense(got), file[f"{prefix}/dense"][order])


@pytest.mark.parametrize("prefix", ["w3_act", "w4"])
def test_products_with_ordered_inputs(prefix, golden):
    from support import golden_rule

    file = np.load(golden("gptq_linear.npz"))
    meta = json.loads(bytes(file["meta_json"]))
    weight = from_gptq(
        GPTQ(*(file[f"{prefix}/{f}"] for f in GPTQ._fields)), bits=int(prefix[1])
    )
    size, columns = weight.codes.shape
    x = golden_rule.gauss("x_test", meta["seed"], (5, size))
    bias = 0.1 * golden_rule.gauss("bias", meta["seed"], (columns,))
    x, bias = (a.astype(np.float16).astype(np.float32) for a in (x, bias))
    if weight.order is not None:
        x = x[:, weight.order]
    np.testing.assert_allclose(
        x @ dense(weight) + bias, file[f"{prefix}/y_numpy"], atol=1e-5
    )


def test_three_bits_by_hand():
    codes = np.zeros((32, 32), np.uint8)
    codes[[0, 9, 10, 11, 20, 21, 31], 0] = [1, 7, 6, 5, 4, 3, 7]
    zero = np.full((1, 32), 4, np.uint8)
    packed = to_gptq(Codes(codes, np.ones((1, 32), np.float16), zero), bits=3)
    # 6 = 110 and 3 = 011 straddle: two and one, one and two bits.
    words = [
        0b10_111_000_000_000_000_000_000_000_000_001,
        0b1_100_000_000_000_000_000_000_000_000_101_1,
        0b111_000_000_000_000_000_000_000_000_000_01,
    ]
    np.testing.assert_array_equal(packed.qweight.view(np.uint32)[:, 0], words)
    less_one = int("011" * 32, 2).to_bytes(12, "little")
    np.testing.assert_array_equal(packed.qzeros[0], np.frombuffer(less_one, "<i4"))


@pytest.mark.parametrize("checkpoint_format", ["gptq", "gptq_v2"])
@pytest.mark.parametrize("bits", WIDTHS)
def test_random_shapes(bits, checkpoint_format, words_along, assert_same):
    how = {"bits": bits, "checkpoint_format": checkpoint_format}
    weight = random_weight(len(checkpoint_format), bits)
    packed = to_gptq(weight, **how)
    stored = weight.zero
    if checkpoint_format == "gptq":
        stored = (stored.astype(int) - 1) % 2**bits
    for words, codes, axis in (
        (packed.qweight, in_place(weight), 0),
        (packed.qzeros, stored, 1),
    ):
        assert words.dtype == np.int32
        np.testing.assert_array_equal(
            np.asarray(words).view(np.uint32), words_along(codes, bits, axis)
        )
    assert_same(from_gptq(packed, **how), weight)
    strided = to_strided(from_gptq(packed, **how), bits=bits, stride=1)
    assert_same(to_gptq(from_strided(strided, bits=bits, stride=1), **how), packed)


@pytest.mark.parametrize("bits", WIDTHS)
def test_zero_points_of_0_wrap(bits):
    weight = random_weight(0, bits)
    weight = weight._replace(zero=np.zeros_like(weight.zero))
    packed = to_gptq(weight, bits=bits)
    assert (packed.qzeros == -1).all()  # every field is 2^bits - 1
    assert (from_gptq(packed, bits=bits).zero == 0).all()
    stored = to_gptq(weight, bits=bits, checkpoint_format="gptq_v2")
    assert (stored.qzeros == 0).all()


def test_symmetric_weights_and_absent_index(assert_same):
    weight = random_weight(3, 3)._replace(order=None)
    packed = to_gptq(weight._replace(zero=None), bits=3)
    got = from_gptq(packed, bits=3)
    assert (got.zero == 4).all()
    assert_same(from_gptq(packed._replace(g_idx=None), bits=3), got)


def test_jit(assert_same):
    weight = random_weight(1, 3)
    packed = jax.jit(lambda w: to_gptq(w, bits=3))(weight)
    assert_same(packed, to_gptq(weight, bits=3))
    g_idx = np.asarray(packed.g_idx)

    @jax.jit
    def read(qweight, qzeros, scales):
        return from_gptq(GPTQ(qweight, qzeros, scales, g_idx), bits=3)

    assert_same(read(*packed[:3]), from_gptq(packed, bits=3))
    with pytest.raises(TypeError, match="Close over it"):
        jax.jit(lambda p: from_gptq(p, bits=3))(packed)


def test_errors():
    weight = Codes(np.zeros((64, 32), np.uint8), np.ones((2, 32), np.float16))
    packed = to_gptq(weight, bits=3)
    for function, given in ((to_gptq, weight), (from_gptq, packed)):
        with pytest.raises(ValueError, match="bits must be one of .* got 5"):
            function(given, bits=5)
        with pytest.raises(ValueError, match="checkpoint_format .* got 'v2'"):
            function(given, bits=3, checkpoint_format="v2")
    with pytest.raises(ValueError, match=r"qweight of shape \(5, 32\)"):
        from_gptq(packed._replace(qweight=packed.qweight[:5]), bits=3)
    with pytest.raises(ValueError, match=r"scales of shape \(2, 16\).*\(64, 32\)"):
        from_gptq(packed._replace(scales=packed.scales[:, :16]), bits=3)
    with pytest.raises(ValueError, match=r"qzeros .*\(2, 2\), expected \(2, 3\)"):
        from_gptq(packed._replace(qzeros=packed.qzeros[:, :2]), bits=3)
    with pytest.raises(ValueError, match=r"g_idx .*\(32,\), expected \(64,\)"):
        from_gptq(packed._replace(g_idx=packed.g_idx[:32]), bits=3)
    with pytest.raises(ValueError, match="each of 2 groups 32 times"):
        from_gptq(packed._replace(g_idx=np.zeros(64, np.int32)), bits=3)
    with pytest.raises(TypeError, match="qzeros .* got float32"):
        from_gptq(packed._replace(qzeros=packed.qzeros.astype(np.float32)), bits=3)
    with pytest.raises(TypeError, match="must be float16.*bfloat16"):
        to_gptq(weight._replace(scale=weight.scale.astype(jax.numpy.bfloat16)), bits=3)
    with pytest.raises(ValueError, match=r"multiples of 32.*\(64, 24\)"):
        to_gptq(Codes(weight.codes[:, :24], weight.scale[:, :24]), bits=3)
    with pytest.raises(ValueError, match=r"multiples of 32.*\(48, 32\)"):
        to_gptq(Codes(weight.codes[:48], weight.scale), bits=3)
