"""Token by token with a cache gives what the whole sequence gives at once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import tiny_decoder
from support.tiny_decoder import CONFIG, prefill, step

from jeff.models import decoder


def test_every_position_equals_the_full_forward():
    """Padded rows included: the first two slots as prompt, the others one by one.

    Layers are stacked here, and listed in the next test.
    """
    params = tiny_decoder.stack_layers(tiny_decoder.params())
    rng = np.random.default_rng(2)
    tokens = rng.integers(0, CONFIG.vocabulary, (3, 6), np.int32)
    valid = np.arange(6) >= np.asarray([[0], [1], [0]])
    whole = tiny_decoder.text(params, tokens, valid)
    expected = np.asarray(tiny_decoder.apply(params, whole, config=CONFIG))
    start = tiny_decoder.text(params, tokens[:, :2], valid[:, :2])
    logits, cache = prefill(params, start, config=CONFIG, length=6)
    np.testing.assert_allclose(logits, expected[:, 1], rtol=1e-5, atol=1e-5)
    for i in range(2, 6):
        logits, cache = step(params, cache, tokens[:, i], config=CONFIG)
        np.testing.assert_allclose(logits, expected[:, i], rtol=1e-5, atol=1e-5)
    assert int(cache.next) == 6
    assert cache.position.tolist() == valid.sum(axis=1).tolist()
    assert (np.asarray(cache.valid) == valid).all()
    assert step._cache_size() <= 2  # not once a token


def test_positions_in_three_directions_go_on_from_the_largest():
    """Qwen2-VL: what follows a picture has equal positions, after all of its own."""
    config, params, sequence, stored = tiny_decoder.vision_language("qwen2_vl_tiny")
    length = sequence.x.shape[1]
    cut = length - 3  # text follows the pictures there
    positions = np.asarray(sequence.positions)
    assert (positions[:, :, cut:] == positions[:1, :, cut:]).all()
    assert positions.max() < length - 1  # a picture takes fewer than its tokens
    x, valid = np.asarray(sequence.x), np.asarray(sequence.valid)
    start = decoder.Sequence(x[:, :cut], positions[..., :cut], valid[:, :cut])
    logits, cache = prefill(params, start, config=config, length=length)
    for i in range(cut, length):
        error = abs(np.asarray(logits) - stored["logits"][:, i - 1]).max()
        assert error <= 5e-5
        assert cache.position.tolist() == positions[0, :, i].tolist()
        logits, cache = step(params, cache, stored["input_ids"][:, i], config=config)
    assert abs(np.asarray(logits) - stored["logits"][:, -1]).max() <= 5e-5


def test_a_narrow_cache_is_narrow_and_close():
    params = tiny_decoder.stack_layers(tiny_decoder.params())
    start = tiny_decoder.text(params, np.asarray([[1, 2], [3, 4], [5, 6]], np.int32))
    _, wide = prefill(params, start, config=CONFIG, length=6)
    options = dict(config=CONFIG, length=6, dtype=jnp.bfloat16)
    _, like = jax.eval_shape(functools.partial(prefill, **options), params, start)
    assert like.key.dtype == like.value.dtype == jnp.bfloat16
    narrow = jax.tree.map(lambda a, b: np.asarray(a).astype(b.dtype), wide, like)
    tokens = np.asarray([1, 2, 3], np.int32)
    wide, narrow = (
        np.asarray(step(params, cache, tokens, config=CONFIG)[0])
        for cache in (wide, narrow)
    )
    error = np.sqrt(np.mean((wide - narrow) ** 2)) / np.std(wide)
    assert 0 < error < 0.02


def test_the_cache_is_written_in_place():
    """No copy of the whole cache, neither from one step to the next nor in a loop."""
    params = tiny_decoder.stack_layers(tiny_decoder.params())
    _, cache = jax.eval_shape(
        functools.partial(decoder.prefill, config=CONFIG, length=512),
        params,
        tiny_decoder.prompt(),
    )
    whole = "f32[" + ",".join(map(str, cache.key.shape)) + "]"

    def many(params, cache, tokens):
        def one(_, carry):
            cache, tokens = carry
            logits, cache = decoder.step(params, cache, tokens, config=CONFIG)
            return cache, logits.argmax(-1).astype(jnp.int32)

        return jax.lax.fori_loop(0, 4, one, (cache, tokens))

    compiled = (
        jax.jit(many, donate_argnums=1)
        .lower(params, cache, jnp.zeros(3, jnp.int32))
        .compile()
    )
    copies = [
        line
        for line in compiled.as_text().splitlines()
        if f"= {whole}" in line and " copy(" in line
    ]
    assert not copies
    aliased = compiled.memory_analysis().alias_size_in_bytes
    assert aliased >= 2 * 4 * cache.key.size


def test_errors():
    params, sequence = tiny_decoder.params(), tiny_decoder.prompt()
    with pytest.raises(ValueError, match="length must be at least the prompt's 6"):
        decoder.prefill(params, sequence, config=CONFIG, length=5)
    _, cache = jax.eval_shape(
        functools.partial(decoder.prefill, config=CONFIG, length=7), params, sequence
    )
    with pytest.raises(ValueError, match=r"tokens must be \(3,\), one a row, got \(2,"):
        decoder.step(params, cache, jnp.zeros(2, jnp.int32), config=CONFIG)
