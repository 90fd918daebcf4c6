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


def test_words_for_one_use():
    typed, other = jax.random.key(4), jax.random.key(4, impl="rbg")
    for key in (typed, jax.random.key_data(typed), other):
        wanted = jax.random.bits(key, (77,))
        np.testing.assert_array_equal(threefry.words(key, 77), wanted)


def test_words_are_kept_on_a_cpu_and_left_to_the_compiler_elsewhere():
    def draw(key):
        return jax.random.normal(threefry.unrolled(key), (64,))

    traced = jax.jit(draw).trace(jax.random.key(0))
    compiled = traced.lower(lowering_platforms=("cpu",)).compile()
    assert " while(" in compiled.as_text()
    elsewhere = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert "stablehlo.while" not in elsewhere


def test_later_calls_outside_of_jit_compile_nothing():
    key = threefry.unrolled(jax.random.key(6))
    calls = {
        "bits": lambda: jax.random.bits(key, (19,)),
        "split": lambda: jax.random.key_data(jax.random.split(key, 3)),
        "fold_in": lambda: jax.random.key_data(jax.random.fold_in(key, 2)),
        "blocks": lambda: threefry.blocks(jax.random.key(6), 5),
    }
    jax.block_until_ready([call() for call in calls.values()])
    compiled = []

    def listen(name, *_, **__):
        compiled.append(name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        jax.block_until_ready([call() for call in calls.values()])
        assert not [name for name in compiled if "backend_compile" in name]
        jax.block_until_ready(jax.random.bits(key, (23,)))  # something new
        assert [name for name in compiled if "backend_compile" in name]
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_sizes_that_are_not_known_or_too_many_for_a_word():
    def draw(key, shape):
        return jax.random.bits(threefry.unrolled(key), shape)

    key = jax.ShapeDtypeStruct((2,), jnp.uint32)
    (n,) = jax.export.symbolic_shape("n")
    x = jax.ShapeDtypeStruct((n,), jnp.float32)
    exported = jax.export.export(jax.jit(lambda key, x: draw(key, x.shape)))(key, x)
    assert exported.out_avals[0].shape == (n,)
    huge = (2**31, 2)
    assert jax.eval_shape(lambda key: draw(key, huge), key).shape == huge
    split = jax.eval_shape(
        lambda key: jax.random.split(threefry.unrolled(key), huge), key
    )
    assert split.shape == huge


def test_the_older_form_of_threefry_and_raw_keys():
    raw = jax.random.key_data(jax.random.key(8))
    wanted = jax.random.bits(raw, (5,))
    np.testing.assert_array_equal(jax.random.bits(threefry.unrolled(raw), (5,)), wanted)
    with jax.threefry_partitionable(False):
        assert threefry.unrolled(raw) is raw


@pytest.mark.parametrize(
    ("key", "error", "words"),
    [
        (jax.random.key(0, impl="rbg"), TypeError, "key must be of 'threefry2x32'"),
        (jax.random.split(jax.random.key(0), 3), ValueError, "key must be one key"),
    ],
)
def test_blocks_are_of_one_key_of_threefry(key, error, words):
    with pytest.raises(error, match=words):
        threefry.blocks(key, 3)


def test_zeros_are_zeros():
    zeros = threefry.zeros(jax.random.key(9), (2, 3), jnp.uint8)
    np.testing.assert_array_equal(zeros, np.zeros((2, 3), np.uint8))


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
