import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff.faults import bit_words
from jeff.faults.method import METHODS

N, TOP = 4000, 0.75


def _bits(word, bits):
    return (np.asarray(word)[..., None] >> np.arange(bits)) & 1


@functools.cache
def _draw(method, bits):
    """One compiled program per method: rates are traced, one per bit."""

    @jax.jit
    def draw(key, rate):
        return bit_words(
            key, rate, (N,), bits=bits, method=method, max_rate=TOP, one_share=0.3
        )

    return draw


@pytest.mark.parametrize(
    ("method", "bits"), [("sparse", 3), ("sparse", 8), ("bit_plane", 8), ("dense", 8)]
)
def test_every_bit_has_its_rate_and_pairs_are_independent(method, bits, key):
    rates = np.linspace(0.25, TOP, bits)
    drawn = _draw(method, bits)(key, rates)
    assert drawn.word.dtype == jnp.uint8 and not drawn.overflow
    hit, one = (_bits(w, bits).astype(float) for w in (drawn.word, drawn.ones))
    assert (np.asarray(drawn.word) >> bits == 0).all()
    assert np.abs(hit.mean(axis=0) - rates).max() < 4.5 * 0.5 / math.sqrt(N) + 1e-3
    # A sample correlation of independent bits has a standard error of 1 / sqrt(n);
    # 5 of them for up to 28 pairs, and for neighbors in the order of positions.
    correlation = np.corrcoef(hit.T) - np.eye(bits)
    assert np.abs(correlation).max() < 5 / math.sqrt(N)
    flat = (hit - rates).ravel()
    for lag in (1, 2, 32, 256):
        assert abs(np.corrcoef(flat[:-lag], flat[lag:])[0, 1]) < 4.5 / math.sqrt(N)
    assert (one <= hit).all()
    share, count = one.sum() / hit.sum(), hit.sum()
    assert abs(share - 0.3) < 4.5 * math.sqrt(0.3 * 0.7 / count)


@pytest.mark.parametrize("method", METHODS)
def test_lower_rates_hit_a_subset_and_traced_zero_hits_nothing(method, key):
    before = np.zeros(N, np.uint8)
    for rate in (0.0, 0.0625, 0.4, TOP):
        drawn = _draw(method, 8)(key, np.full(8, rate, np.float32))
        word, ones = np.asarray(drawn.word), np.asarray(drawn.ones)
        assert (before & ~word == 0).all() and (ones & ~word == 0).all()
        assert (word != 0).any() == (rate > 0)
        if rate > 0:
            assert (ones != 0).any() and (word & ~ones != 0).any()
        before = word
    assert not drawn.overflow


@pytest.mark.parametrize("method", METHODS)
def test_maps_over_keys_and_rates_draw_what_single_calls_draw(method, key):
    rates = np.stack([np.full(8, 0.2, np.float32), np.linspace(0.1, TOP, 8)])
    keys = jax.random.split(key, 2)
    draw = _draw(method, 8)
    expected = np.stack([draw(*both).word for both in zip(keys, rates, strict=True)])
    mapped = jax.jit(jax.vmap(lambda key, rate: draw(key, rate).word))(keys, rates)
    np.testing.assert_array_equal(mapped, expected)


def test_wide_words_hold_all_their_bits(key):
    rates = np.linspace(0.1, 0.9, 32)
    drawn = bit_words(key, rates, (2000,), bits=32)
    assert drawn.word.dtype == jnp.uint32 and drawn.ones is None
    hit = _bits(drawn.word.astype(jnp.uint32), 32).astype(float)
    assert np.abs(hit.mean(axis=0) - rates).max() < 4.5 * 0.5 / math.sqrt(2000)


@pytest.mark.parametrize("method", METHODS)
def test_known_rates_0_and_1(method, key):
    none = bit_words(key, 0.0, (37,), bits=5, method=method)
    full = bit_words(key, 1.0, (37,), bits=5, method=method)
    assert not np.any(none.word) and (np.asarray(full.word) == 31).all()


def test_an_array_may_be_empty(key):
    assert bit_words(key, 0.1, (0, 3), bits=5, method="sparse").word.shape == (0, 3)


def test_a_traced_rate_above_the_largest_is_flagged(key):
    draw = _draw("sparse", 8)
    assert draw(key, np.full(8, 0.8, np.float32)).overflow


def test_bad_input_is_named(key):
    with pytest.raises(ValueError, match="one number or 8, got shape"):
        bit_words(key, [0.1, 0.2], (3,), bits=8)
    with pytest.raises(ValueError, match="from 1 to 32, got 33"):
        bit_words(key, 0.1, (3,), bits=33)
    with pytest.raises(ValueError, match="from 1 to 32, got True"):
        bit_words(key, 0.1, (3,), bits=True)
    with pytest.raises(ValueError, match="one_share must be in .0, 1., got 2"):
        bit_words(key, 0.1, (3,), bits=3, one_share=2)
