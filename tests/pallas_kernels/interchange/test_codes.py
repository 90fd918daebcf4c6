"""The form between layouts: what fits, and orders of inputs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels import interchange
from pallas_kernels.interchange import Codes, input_order
from pallas_kernels.interchange.codes import (
    apply_order,
    as_codes,
    as_words,
    group_index,
    restore_order,
)


def weight(**changes) -> Codes:
    fields = {
        "codes": np.zeros((8, 4), np.uint8),
        "scale": np.ones((2, 4), np.float16),
        "zero": np.zeros((2, 4), np.uint8),
        "order": np.arange(8, dtype=np.int32),
    }
    return Codes(**fields | changes)


def test_fitting_codes_are_unchanged():
    for got, given in zip(as_codes(weight()), weight(), strict=True):
        assert got.dtype == given.dtype
        np.testing.assert_array_equal(got, given)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"codes": np.zeros((8, 4), np.int32)}, TypeError, "codes .* uint8, got int32"),
        ({"codes": np.zeros(8, np.uint8)}, ValueError, r"codes .* \(8,\)"),
        ({"scale": np.ones((3, 4), "f2")}, ValueError, r"\(3, 4\) .* \(8, 4\)"),
        ({"scale": np.ones((2, 1), "f2")}, ValueError, r"\(2, 1\) .* \(8, 4\)"),
        ({"scale": np.ones((0, 4), "f2")}, ValueError, r"\(0, 4\) .* \(8, 4\)"),
        ({"scale": np.ones((2, 4))}, TypeError, "scale .* got float64"),
        ({"scale": np.ones((2, 4), int)}, TypeError, "scale .* got int64"),
        ({"zero": np.zeros((2, 4), "f4")}, TypeError, "zero .* got float32"),
        ({"zero": np.zeros((1, 4), np.uint8)}, ValueError, r"\(1, 4\).*\(2, 4\)"),
        ({"order": np.arange(8.0)}, TypeError, "order .* got float64"),
        ({"order": np.arange(4, dtype="i4")}, ValueError, r"\(4,\).*\(8, 4\)"),
        ({"codes": [[0]]}, TypeError, "codes .* got list"),
    ],
)
def test_what_does_not_fit_is_named(changes, error, words):
    with pytest.raises(error, match=words):
        as_codes(weight(**changes))


def test_signed_and_unsigned_words():
    signed = np.array([[-1, 5]], np.int32)
    for words in (signed, signed.view(np.uint32), jnp.asarray(signed)):
        got = as_words(words, "qweight", (1, 2))
        assert got.dtype == jnp.uint32
        np.testing.assert_array_equal(got, [[2**32 - 1, 5]])
    with pytest.raises(TypeError, match="qweight .* got int64"):
        as_words(signed.astype(np.int64), "qweight")
    with pytest.raises(ValueError, match=r"qweight .*\(1, 2\).*\(2, 1\)"):
        as_words(signed, "qweight", (2, 1))
    with pytest.raises(ValueError, match=r"qweight .*\(2,\)"):
        as_words(signed[0], "qweight")


@pytest.mark.parametrize("seed", range(5))
def test_orders_make_groups_contiguous_and_are_undone(seed, random_codes):
    rng = np.random.default_rng(seed)
    groups = int(rng.integers(1, 6))
    size = groups * int(rng.integers(1, 9))
    g_idx = rng.permutation(np.repeat(np.arange(groups), size // groups))
    codes = jnp.asarray(random_codes((size, 3), 8, seed))
    rows, order = apply_order(codes, g_idx, groups)
    if order is None:
        assert (np.diff(g_idx) >= 0).all()
    else:
        assert (g_idx[order] == np.arange(size) // (size // groups)).all()
        assert (np.diff(np.asarray(order).reshape(groups, -1)) > 0).all()  # stable
        np.testing.assert_array_equal(rows, codes[order])
    back, inverse = restore_order(Codes(rows, None, None, order))
    np.testing.assert_array_equal(back, codes)
    np.testing.assert_array_equal(group_index(inverse, size, groups), g_idx)


def test_groups_must_be_of_one_size():
    with pytest.raises(ValueError, match="each of 2 groups 2 times.* 1 to 3 inputs"):
        input_order(np.array([0, 0, 0, 1]), 2)
    with pytest.raises(ValueError, match="values from -1 to 1"):
        input_order(np.array([0, 0, 1, -1]), 2)
    with pytest.raises(ValueError, match="values from 0 to 2"):
        input_order(np.array([0, 0, 1, 2]), 2)
    with pytest.raises(ValueError, match="1.33333 times"):
        input_order(np.array([0, 0, 1, 2]), 3)
    with pytest.raises(TypeError, match="float64"):
        input_order(np.array([0.0, 1.0]), 2)
    with pytest.raises(ValueError, match=r"\(1, 2\)"):
        input_order(np.array([[0, 1]]), 2)
    with pytest.raises(ValueError, match=r"\(3,\).*\(4,\)"):
        apply_order(jnp.zeros((4, 1), jnp.uint8), np.arange(3), 1)


def test_a_traced_index_is_refused():
    with pytest.raises(TypeError, match="Close over it"):
        jax.jit(lambda g: jnp.asarray(input_order(g, 2)))(np.array([0, 1]))


@pytest.mark.parametrize("name", ["codes", "zero"])
def test_what_does_not_fit_the_width_is_not_cut(name):
    codes = Codes(
        np.zeros((64, 32), np.uint8),
        np.ones((2, 32), np.float16),
        np.zeros((2, 32), np.uint8),
    )
    getattr(codes, name)[1, 3] = 16
    for write in (
        interchange.to_autoawq,
        functools.partial(interchange.to_gptq, bits=4),
        functools.partial(interchange.to_compressed_tensors, bits=4),
        functools.partial(interchange.to_strided, bits=4),
    ):
        with pytest.raises(ValueError, match=rf"{name} must be below 2\^4, got 16"):
            write(codes)
