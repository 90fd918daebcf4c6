"""Words and numbers exactly as `jax.random` makes them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels import threefry

DRAWS = {
    "bits": lambda key: [
        jax.random.bits(key, (3, 5), f"uint{width}") for width in (8, 16, 32)
    ],
    "normal": lambda key: jax.random.normal(key, (1000,)),
    "uniform": lambda key: jax.random.uniform(key, (2, 0, 3)),
    "randint": lambda key: jax.random.randint(key, (), 0, 1000),
    "permutation": lambda key: jax.random.permutation(key, 50),
    "split": lambda key: jax.random.normal(jax.random.split(key, (2, 3))[1, 2], (4,)),
    "fold_in": lambda key: jax.random.bits(jax.random.fold_in(key, 2**32 - 1)),
}


@pytest.mark.parametrize(
    ("key", "counter", "words"),
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((2**32 - 1,) * 2, (2**32 - 1,) * 2, (0x1CB996FC, 0xBB002BE7)),
        (
            (0x13198A2E, 0x03707344),
            (0x243F6A88, 0x85A308D3),
            (0xC4923A9C, 0x483DF7A0),
        ),
    ],
)
def test_blocks_are_those_of_the_authors(key, counter, words):
    """Known-answer vectors of Random123 (file kat_vectors, threefry2x32, 20 rounds)."""
    pairs = [tuple(jnp.uint32(word) for word in pair) for pair in (key, counter)]
    found = jax.jit(threefry.block)(*pairs)
    assert tuple(int(word) for word in found) == words


def test_words_at_places_are_those_of_jax():
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


@pytest.mark.parametrize("name", DRAWS)
def test_unrolled_keys_draw_what_keys_draw(name):
    keys = jax.random.split(jax.random.key(3), 2)

    @jax.jit
    def both(keys):
        same = (
            jax.vmap(DRAWS[name])(keys),
            jax.vmap(DRAWS[name])(threefry.unrolled(keys)),
        )
        return same, jax.random.normal(threefry.unrolled(keys[0]))  # of one key

    (wanted, got), _ = both(keys)
    for a, b in zip(jax.tree.leaves(wanted), jax.tree.leaves(got), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_words_of_64_bits():
    with jax.enable_x64(True):
        key = jax.random.key(1)
        wanted = jax.random.bits(key, (4,), "uint64")
        got = jax.random.bits(threefry.unrolled(key), (4,), "uint64")
    np.testing.assert_array_equal(got, wanted)


def test_folding_keeps_the_kind_of_key():
    numbers = jnp.arange(4, dtype=jnp.uint32)
    for name in ("threefry2x32", "rbg"):
        key = jax.random.key(2, impl=name)
        got = jax.vmap(threefry.fold_in, (None, 0))(key, numbers)
        wanted = jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)
        assert jax.random.key_impl(got) == name
        np.testing.assert_array_equal(*map(jax.random.key_data, (got, wanted)))


def test_words_are_drawn_once_for_all_uses():
    def two_uses(key):
        words = jax.random.bits(threefry.unrolled(key), (64,))
        return words.sum(), words.max()

    compiled = jax.jit(two_uses).lower(jax.random.key(0)).compile()
    rounds = compiled.as_text().count(" xor(")
    single = jax.jit(lambda key: two_uses(key)[0]).lower(jax.random.key(0)).compile()
    assert rounds == single.as_text().count(" xor(")


def test_gradients_and_loops_may_hold_draws():
    key = jax.random.key(0)

    def loss(scale, key):
        def step(total, i):
            noise = jax.random.normal(threefry.unrolled(jax.random.fold_in(key, i)))
            return total + scale * noise, None

        return jax.lax.scan(jax.checkpoint(step), 0.0, jnp.arange(3))[0]

    wanted = sum(jax.random.normal(jax.random.fold_in(key, i)) for i in range(3))
    got = jax.jit(jax.grad(loss))(1.0, key)
    np.testing.assert_allclose(got, wanted, rtol=0, atol=3 * 2.0**-22)  # numbers < 4
