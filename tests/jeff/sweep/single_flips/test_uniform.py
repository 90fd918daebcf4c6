"""Uniform numbers, against products of Python's whole numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff.sweep.single_flips.uniform import uniform_below

COUNT = 2000
KEYS = jax.jit(lambda key: jax.random.split(key, COUNT))


@pytest.fixture(scope="module")
def draw():
    words = jax.vmap(lambda k: jax.random.bits(k, (2,), jnp.uint32))
    numbers = jax.vmap(uniform_below, (0, None))
    return jax.jit(lambda keys, size: (words(keys), numbers(keys, size)))


@pytest.mark.parametrize("size", [1, 2, 7, 2**16 + 1, 10**9, 2**31 - 1])
def test_they_are_the_upper_part_of_a_product(draw, key, size):
    words, numbers = draw(KEYS(key), np.int32(size))
    low, high = np.asarray(words).T.astype(object)
    np.testing.assert_array_equal(numbers, (((high << 32) + low) * size) >> 64)
    assert numbers.dtype == np.int32
    if size == 10**9:  # where a remainder of 32 bits would be off by a fifth
        share = (np.asarray(numbers) < 2**32 % size).mean()
        expected = 2**32 % size / size  # to four standard deviations
        assert abs(share - expected) < 4 * (expected * (1 - expected) / COUNT) ** 0.5
