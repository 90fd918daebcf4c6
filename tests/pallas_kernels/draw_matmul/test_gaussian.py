"""Normal numbers as `jax.random` makes them, nearly."""

import jax
import jax.numpy as jnp
import numpy as np

from pallas_kernels.draw_matmul import gaussian


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
