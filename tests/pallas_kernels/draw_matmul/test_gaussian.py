"""Words exactly, and normal numbers nearly, as `jax.random` makes them."""

import jax
import jax.numpy as jnp
import numpy as np

from pallas_kernels.draw_matmul import gaussian, threefry


def test_words_are_those_of_jax():
    seeds = jnp.arange(5, dtype=jnp.uint32)

    @jax.jit
    def both(seeds):
        keys = jax.vmap(jax.random.key)(seeds * np.uint32(0x9E3779B9))
        left, right = jnp.moveaxis(jax.random.key_data(keys), -1, 0)[..., None]
        index = jnp.arange(1000, dtype=jnp.uint32)
        wanted = jax.vmap(lambda key: jax.random.bits(key, (1000,)))(keys)
        return threefry.bits((left, right), index), wanted

    got, wanted = both(seeds)
    np.testing.assert_array_equal(got, wanted)


def test_blocks_are_those_of_the_authors():
    """Known-answer vectors of Random123 (file kat_vectors, threefry2x32, 20 rounds)."""
    ones = jnp.uint32(0xFFFFFFFF)
    got = threefry.block((ones, ones), (ones, ones))
    assert [int(word) for word in got] == [0x1CB996FC, 0xBB002BE7]
    key = jnp.uint32(0x13198A2E), jnp.uint32(0x03707344)
    got = threefry.block(key, (jnp.uint32(0x243F6A88), jnp.uint32(0x85A308D3)))
    assert [int(word) for word in got] == [0xC4923A9C, 0x483DF7A0]


def test_normal_numbers_are_those_of_jax_to_4_units_in_the_last_place():
    # Of the 2^23 numbers that a word can become: both ends, the middle, and every 61st.
    ends = np.arange(2**14)
    middle = 2**22 - 2**13
    which = np.concatenate(
        [ends, middle + ends, 2**23 - 1 - ends, np.arange(0, 2**23, 61)]
    )
    words = jnp.asarray(which << 9, jnp.uint32)
    low = np.nextafter(np.float32(-1), np.float32(0))

    @jax.jit
    def jax_way(words):  # jax.random.uniform between low and 1, jax.random.normal
        number = jax.lax.bitcast_convert_type(
            (words >> np.uint32(9)) | np.uint32(0x3F800000), jnp.float32
        )
        u = (number - np.float32(1)) * (np.float32(1) - low) + low
        u = jnp.maximum(low, u)
        return u, np.float32(np.sqrt(2)) * jax.lax.erf_inv(u)

    @jax.jit
    def own_way(words):
        u = gaussian.uniform(words)
        return u, gaussian.SCALE * gaussian.erf_inv(u)

    (u, wanted), (own_u, got) = jax_way(words), own_way(words)
    np.testing.assert_array_equal(own_u, u)
    np.testing.assert_array_max_ulp(np.asarray(got), np.asarray(wanted), 4)


def test_the_jax_way_above_is_what_jax_does():
    @jax.jit
    def both(key):
        u = gaussian.uniform(jax.random.bits(key, (4096,)))
        return gaussian.SCALE * gaussian.erf_inv(u), jax.random.normal(key, (4096,))

    got, wanted = both(jax.random.key(3))
    np.testing.assert_array_max_ulp(np.asarray(got), np.asarray(wanted), 4)
