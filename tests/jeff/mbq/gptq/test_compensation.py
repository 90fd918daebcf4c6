"""The blocked recursion against the plain one, for a factor given by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.case import normal

from jeff.mbq.gptq import compensation
from jeff.quantize import QuantConfig, affine

CONFIG = QuantConfig(bits=3, group_size=8)
sweep = jax.jit(compensation.sweep, static_argnames=("config", "block", "size"))
parameters = jax.jit(functools.partial(affine.affine_parameters, config=CONFIG))


def plain(w, upper, scale, zero):
    """One channel after the other, each correction applied to all at once."""
    w, codes = np.array(w, np.float64), np.zeros(w.shape, np.uint8)
    for i in range(len(w)):
        codes[i] = np.clip(np.round(w[i] / scale[i]) + zero[i], 0, 7)
        error = (w[i] - (codes[i] - zero[i]) * scale[i]) / upper[i, i]
        w[i:] -= np.outer(upper[i, i:], error)
    return codes


def factor(seed, k):
    upper = np.triu(np.asarray(normal(seed, k, k)))
    return np.float32(upper + np.diag(1 + np.abs(upper).sum(1)))


@pytest.mark.parametrize("block", [1, 5, 8, 24, 99])
def test_blocks_with_scales_given(block):
    """5 does not divide the 24 channels; 99 is more than there are."""
    w, upper = normal(0, 24, 6), factor(1, 24)
    found = parameters(w)
    rows = jax.tree.map(lambda a: jnp.repeat(a, 8, axis=0), found)
    codes, nothing = sweep(w, upper, rows, config=CONFIG, block=block, size=8)
    want = plain(w, upper, *(np.asarray(a, np.float64) for a in rows))
    np.testing.assert_array_equal(codes, want)
    assert nothing == ()


@pytest.mark.parametrize("block", [2, 8])
def test_scales_found_on_the_way_are_those_of_corrected_weights(block):
    w, upper = normal(2, 24, 6), factor(3, 24)
    codes, (scale, zero) = sweep(w, upper, None, config=CONFIG, block=block, size=8)
    assert codes.shape == w.shape and scale.shape == zero.shape == (3, 6)
    first, _ = parameters(w)
    np.testing.assert_array_equal(scale[0], first[0])
    assert (scale[1:] != first[1:]).any()
    spread = [np.repeat(np.asarray(a, np.float64), 8, axis=0) for a in (scale, zero)]
    np.testing.assert_array_equal(codes, plain(w, upper, *spread))
