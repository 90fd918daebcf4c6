"""Generated text: the original's, and the same whatever the batch around it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import tiny_decoder
from support.tiny_decoder import CONFIG, VALID

from jeff.models import decoder, generation, registry

generate = functools.partial(generation.generate, config=CONFIG, max_new_tokens=5)


def test_greedy_tokens_of_the_original(golden):
    """Of two rows at once, one of them padded on the left by four."""
    folder = golden("llama_tiny")
    model = registry.load(folder, stacked=True)
    with np.load(folder / "io.npz") as file:
        stored = {name: file[name] for name in file.files}
    valid = stored["attention_mask"].astype(bool)
    inputs = {"tokens": stored["input_ids"], "valid": valid}
    logits = jax.jit(model.apply)(model.params, inputs)
    assert abs(np.asarray(logits) - stored["logits"])[valid].max() <= 5e-5
    out = generation.generate(
        model.params["decoder"],
        tiny_decoder.text(model.params["decoder"], stored["input_ids"], valid),
        config=model.config.decoder,
        max_new_tokens=8,
    )
    np.testing.assert_array_equal(out.tokens, stored["greedy8"])
    assert out.lengths.tolist() == [8, 8]


def test_stop_tokens_end_a_row():
    dense = tiny_decoder.stack_layers(tiny_decoder.params())
    unused = CONFIG.vocabulary - 1
    free = generate(dense, tiny_decoder.prompt(), stop_tokens=(unused,) * 3)
    assert free.lengths.tolist() == [5, 5, 5]
    free = np.asarray(free.tokens)
    stop = int(free[0, 2])
    out = generate(dense, tiny_decoder.prompt(), stop_tokens=(stop, unused, stop))
    for row, tokens, length in zip(free, np.asarray(out.tokens), out.lengths, strict=1):
        ends = np.flatnonzero(row == stop)
        expected = ends[0] if ends.size else len(row)
        assert length == expected
        np.testing.assert_array_equal(tokens[:expected], row[:expected])
        assert (tokens[expected:] == row[expected : expected + 1]).all()
    everything = generate(
        dense, tiny_decoder.prompt(), stop_tokens=tuple(free[:, 0].tolist())
    )
    assert everything.lengths.tolist() == [0, 0, 0]
    np.testing.assert_array_equal(everything.tokens, np.repeat(free[:, :1], 5, axis=1))


def test_sampled_rows_do_not_depend_on_the_others():
    dense = tiny_decoder.stack_layers(tiny_decoder.params())
    prompt = tiny_decoder.prompt()
    drawn = functools.partial(
        generate, dense, key=jax.random.key(3), temperature=1.5, top_k=30, top_p=0.95
    )
    before = generation._write._cache_size()
    together = np.asarray(drawn(prompt).tokens)
    np.testing.assert_array_equal(drawn(prompt).tokens, together)
    hotter = drawn(prompt, temperature=2.5, top_p=0.9, key=jax.random.key(4))
    assert generation._write._cache_size() == before + 1  # one trace for all three
    assert (np.asarray(hotter.tokens) != together).any()
    x, positions, valid = map(np.asarray, prompt)
    others = decoder.Sequence(
        np.concatenate([x[:1], x[[2, 0]]]),
        np.concatenate([positions[:1], positions[[2, 0]]]),
        np.concatenate([valid[:1], valid[[2, 0]]]),
    )
    np.testing.assert_array_equal(drawn(others).tokens[0], together[0])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"max_new_tokens": 0}, ValueError, "max_new_tokens must be at least 1, got 0"),
        ({"max_new_tokens": -3}, ValueError, "at least 1, got -3"),
        ({"max_new_tokens": 2.0}, TypeError, r"must be an int, got 2\.0"),
        ({"temperature": -0.1}, ValueError, "temperature must be at least 0, got -0.1"),
        ({"temperature": float("nan")}, ValueError, "got nan"),
        ({"temperature": 1.0}, ValueError, r"temperature 1\.0 needs a key"),
        ({"top_k": 3}, ValueError, "top_k 3 needs a temperature above 0"),
        ({"top_p": 0.5}, ValueError, r"top_p 0\.5 needs a temperature above 0"),
        ({"temperature": 1.0, "key": 0, "top_k": 49}, ValueError, r"in \[1, 48\]"),
        ({"temperature": 1.0, "key": 0, "top_k": 2.0}, TypeError, "top_k must be an"),
        ({"temperature": 1.0, "key": 0, "top_p": 0.0}, ValueError, r"\(0, 1\], got 0"),
        ({"stop_tokens": (48,)}, ValueError, "vocabulary of 48, got 48"),
        ({"stop_tokens": ("</s>",)}, TypeError, "must be ints, got '</s>'"),
    ],
)
def test_settings_errors(change, error, message):
    with pytest.raises(error, match=message):
        generate({}, None, **change)


def test_prompt_errors():
    sequence = tiny_decoder.prompt()
    empty = decoder.Sequence(*(np.asarray(a)[:, :0] for a in sequence))
    with pytest.raises(ValueError, match=r"the prompt is empty: its shape is \(3, 0\)"):
        generate({}, empty)
    padding = sequence._replace(valid=VALID & (np.arange(3) != 1)[:, None])
    with pytest.raises(ValueError, match=r"rows .* are padding only: \[1\]"):
        generate({}, padding)
    right = sequence._replace(valid=VALID[:, ::-1])
    with pytest.raises(ValueError, match=r"not padded on the left only: \[1, 2\]"):
        generate({}, right)
    with pytest.raises(ValueError, match="x must be"):
        generate({}, sequence._replace(x=jnp.zeros((3, 6, 31))))
