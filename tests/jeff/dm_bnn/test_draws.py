"""Normal numbers of few random bits: their values, moments, words, and use."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special, stats

from jeff import dm_bnn
from jeff.dm_bnn import draws

NORMALS = {8: dm_bnn.normal8, 16: dm_bnn.normal16}
BITS = pytest.mark.parametrize("bits", sorted(NORMALS))


@BITS
def test_values_are_means_within_equally_likely_bins(bits):
    number, table = 2**bits, draws.values(bits).astype(np.float64)
    edges = special.ndtri(np.arange(number + 1) / number)
    picked = [0, 1, number // 3, number // 2, number - 2, number - 1]
    means = []
    for i in picked:
        area, error = integrate.quad(
            lambda z: z * stats.norm.pdf(z), edges[i], edges[i + 1]
        )
        assert error < 1e-4 * abs(area)
        means.append(area * number)
    # All are stretched alike, and by no more than the variance within a bin asks for.
    stretch = table[picked] / means
    np.testing.assert_allclose(stretch, stretch[0], rtol=1e-5)
    assert 1 - 1e-6 < stretch[0] < 1 + 0.1 / number


@BITS
def test_moments_and_distance_are_those_of_the_documentation(bits):
    largest, kurtosis, distance = {
        8: (2.970, -0.036, 2.4e-3),
        16: (4.388, -0.00017, 9.5e-6),
    }[bits]
    table, number = draws.values(bits).astype(np.float64), 2**bits
    assert np.array_equal(table, -table[::-1]) and (np.diff(table) > 0).all()
    assert abs(np.mean(table**2) - 1) < 1e-8  # float32 values, errors of either sign
    assert table[-1] == pytest.approx(largest, rel=2e-4)
    assert np.mean(table**4) - 3 == pytest.approx(kurtosis, rel=0.02)
    below = special.ndtr(table) - np.arange(number) / number
    far = max(np.abs(below).max(), np.abs(below - 1 / number).max())
    assert far == pytest.approx(distance, rel=0.01)


@BITS
def test_numbers_are_looked_up_in_the_words_of_the_key(bits):
    """Both words of the blocks with counters 0, 1, ...: their xor is JAX's own word."""
    key, per = jax.random.key(3), 32 // bits
    drawn = NORMALS[bits](key, 2 * 5 * per)
    codes = np.searchsorted(draws.values(bits), np.asarray(drawn))
    words = (codes.reshape(2, 5, per) << (bits * np.arange(per))).sum(-1)
    own = jax.random.bits(key, (5,), jnp.uint32)
    assert np.array_equal(words[0] ^ words[1], np.asarray(own))


@BITS
@pytest.mark.parametrize("count", [0, 7])
def test_shape_and_map(bits, count):
    keys = jax.random.split(jax.random.key(0), 3)
    many = jax.jit(jax.vmap(lambda key: NORMALS[bits](key, count)))(keys)
    assert many.shape == (3, count) and many.dtype == jnp.float32
    one = NORMALS[bits](jax.random.key_data(keys[1]), count)
    assert np.array_equal(many[1], one)


@BITS
def test_all_values_are_equally_likely_and_unrelated(bits):
    """Chi-square and neighbours' product within 4 standard errors, n = 2^17."""
    n, cells = 2**17, 256
    drawn = np.asarray(NORMALS[bits](jax.random.key(1), n), np.float64)
    codes = np.searchsorted(draws.values(bits), drawn) >> (bits - 8)
    counts = np.bincount(codes, minlength=cells)
    chi = np.square(counts - n / cells).sum() / (n / cells)
    assert abs(chi - (cells - 1)) < 4 * np.sqrt(2 * (cells - 1))
    for lag in (1, 2, 4, 8):  # numbers of one word, and of neighbours
        product = np.mean(drawn[:-lag] * drawn[lag:])
        assert abs(product) < 4 / np.sqrt(n - lag)


def test_voters_of_all_modes_take_them():
    def apply(params, x):
        return jnp.tanh(x @ params["up"]) @ params["down"]

    params = {"up": jnp.ones((4, 6)) / 4, "down": jnp.ones((6, 2)) / 6}
    random = dm_bnn.posterior(params, 0.2)
    x = jnp.array([[1.0, -1.0, 0.5, 2.0]])

    def voters(mode):
        return jax.jit(
            lambda key: dm_bnn.predict(
                apply, random, x, key, voters=(4, 2), mode=mode, draw=dm_bnn.normal8
            )
        )(jax.random.key(0))

    naive = voters("naive")
    np.testing.assert_allclose(voters("dm"), naive, rtol=1e-5, atol=1e-6)
    assert voters("lrt").shape == naive.shape == (8, 1, 2)
    assert len(np.unique(np.asarray(naive)[:, 0, 0])) == 8


def test_errors():
    with pytest.raises(ValueError, match="count must be at least 0, got -1"):
        dm_bnn.normal8(jax.random.key(0), -1)
    with pytest.raises(ValueError, match="threefry2x32"):
        dm_bnn.normal16(jax.random.key(0, impl="rbg"), 4)
    with pytest.raises(TypeError, match="key must be a JAX key"):
        dm_bnn.normal16(7, 4)
    with pytest.raises(ValueError, match="bits must be one of"):
        draws.values(4)
