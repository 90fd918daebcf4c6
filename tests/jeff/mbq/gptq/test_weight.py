"""Weights of any axes: the same codes as of the matrix they stand for."""

import re

import jax.numpy as jnp
import numpy as np
import pytest
from support import gptq_reference as ref
from support.case import normal

from jeff.mbq import activation_hessian, gptq_codes, gptq_quantize
from jeff.mbq.gptq.weight import _round_stack
from jeff.quantize import QuantConfig


def config(group_size=16, **changes):
    return QuantConfig(bits=3, group_size=group_size, **changes)


def hessian(seed, k):
    return activation_hessian(normal(seed, 50, 3) @ normal(seed + 1, 3, k)).value


def check(q, w, codes):
    """`q` holds these codes of a matrix."""
    np.testing.assert_array_equal(q.codes().reshape(w.shape), codes.codes)
    np.testing.assert_array_equal(q.scale.ravel(), codes.scale.ravel())
    np.testing.assert_array_equal(q.zero.ravel(), codes.zero.ravel())


@pytest.mark.parametrize(("bits", "group_size"), [(2, 8), (3, 48), (4, None), (8, 8)])
def test_matrix(bits, group_size):
    w, h = normal(0, 48, 5), hessian(1, 48)
    settings = QuantConfig(bits=bits, group_size=group_size)
    q = gptq_quantize(w, h, settings)
    codes = gptq_codes(w, h, settings)
    check(q, w, codes)
    index = np.asarray(codes.group_index)
    zero, scale, steps = (
        np.asarray(a, np.float32) for a in (codes.zero, codes.scale, codes.codes)
    )
    np.testing.assert_array_equal(q.decode(), (steps - zero[index]) * scale[index])
    assert q.dtype == w.dtype and q.contract == (-2,)


@pytest.mark.parametrize("group_size", [8, 32, None])
def test_heads(group_size):
    """Contracted over heads and their width, groups within one head or over several."""
    w, h = normal(0, 4, 16, 5), hessian(1, 64)
    q = gptq_quantize(w, h, config(group_size), contract_axes=(0, 1))
    matrix = w.reshape(64, 5)
    check(q, matrix, gptq_codes(matrix, h, config(group_size)))


def test_transposed():
    w, h = normal(0, 5, 32), hessian(1, 32)
    q = gptq_quantize(w, h, config(), contract_axes=(-1,))
    want = gptq_codes(w.T, h, config())
    np.testing.assert_array_equal(q.codes().T, want.codes)
    np.testing.assert_array_equal(q.scale.T, want.scale)


@pytest.mark.parametrize("stack_axis", [0, 1, 2])
def test_stacks(stack_axis):
    w = normal(0, 3, 32, 5)
    h = jnp.stack([hessian(i, 32) for i in range(3)])
    moved = jnp.moveaxis(w, 0, stack_axis)
    contract = 1 if stack_axis == 0 else 0 if stack_axis == 2 else 0
    q = gptq_quantize(
        moved, h, config(), contract_axes=(contract,), stack_axes=(stack_axis,)
    )
    codes = jnp.moveaxis(q.codes(), stack_axis, 0)
    for i in range(3):
        want = gptq_codes(w[i], h[i], config())
        np.testing.assert_array_equal(codes[i], want.codes)
        scale = jnp.take(q.scale, i, stack_axis)
        np.testing.assert_array_equal(scale, want.scale)


def test_act_order_keeps_groups_of_neighbours():
    w, h = normal(0, 64, 5), hessian(1, 64)
    q = gptq_quantize(w, h, config(8), act_order=True)
    check(q, w, gptq_codes(w, h, config(8), act_order=True, static_groups=True))
    plain = gptq_quantize(w, h, config(8))
    assert (q.codes() != plain.codes()).any()


def test_symmetric_and_narrow():
    w = normal(0, 40, 5).astype(jnp.bfloat16)
    settings = QuantConfig(bits=4, group_size=20, symmetric=True)
    q = gptq_quantize(w, hessian(1, 40), settings)
    assert q.zero is None and q.dtype == jnp.bfloat16 and q.decode().shape == (40, 5)
    wide = w.astype(jnp.float32)
    h = ref.damped(hessian(1, 40))
    assert ref.error(wide, q.decode().astype(jnp.float32), h) < ref.error(wide, 0, h)


def test_compiled_once_per_shape():
    w, h = normal(0, 32, 5), hessian(1, 32)
    gptq_quantize(w, h, config())
    before = _round_stack._cache_size()
    gptq_quantize(w + 1, 2 * h, config(), damping=0.1)
    assert _round_stack._cache_size() == before


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"hessian": np.eye(31, dtype=np.float32)},
            ValueError,
            "hessian must have shape (32, 32) for w of shape (32, 5) contracted over "
            "(-2,), got (31, 31)",
        ),
        (
            {"w": np.ones((2, 32, 5), np.float32), "stack_axes": (0,)},
            ValueError,
            "hessian must have shape (2, 32, 32) for w of shape (2, 32, 5)",
        ),
        (
            {"hessian": np.full((32, 32), np.nan, np.float32)},
            ValueError,
            "1024 values of hessian are NaN or infinite",
        ),
        ({"config": config(24)}, ValueError, "group_size 24 does not divide"),
        ({"config": 3}, TypeError, "config must be a QuantConfig, got 3"),
        ({"w": 3}, TypeError, "w must be floating, got int32"),
        ({"damping": -1.0}, ValueError, "damping must be finite and not negative"),
        ({"act_order": 1}, TypeError, "act_order must be True or False, got 1"),
        ({"contract_axes": (2,)}, ValueError, "contract_axes (2,) is out of range"),
        (
            {"hessian": -np.ones((32, 32), np.float32)},
            ValueError,
            "hessian is not positive definite with damping=0.01",
        ),
    ],
)
def test_bad_input(changes, error, message):
    arguments = {"w": normal(0, 32, 5), "hessian": hessian(1, 32), "config": config()}
    with pytest.raises(error, match=re.escape(message)):
        gptq_quantize(**{**arguments, **changes})
