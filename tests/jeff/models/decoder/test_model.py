"""The decoder against the original programs, and as the other systems see it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import tiny_decoder
from support.tiny_decoder import CONFIG, VALID

from jeff import program
from jeff.mbq.groups.fold import fold_scale
from jeff.mbq.groups.infer import infer_groups
from jeff.mbq.scales.search import relative_change
from jeff.models import decoder
from jeff.quantize import QuantConfig, quantize

SIZES = dict(vocabulary=4, width=4, layers=1, heads=2, kv_heads=2, head_dim=2, hidden=4)


def test_logits_of_the_original():
    """Embeddings in, logits out, stacked; the whole models are tested on their own."""
    config, params, sequence, stored = tiny_decoder.vision_language(
        "llava_onevision_tiny"
    )
    params = tiny_decoder.stack_layers(params)
    logits = tiny_decoder.apply(params, sequence, config=config)
    valid = np.asarray(sequence.valid)
    assert valid.any() and not valid.all()
    error = abs(np.asarray(logits) - stored["logits"])[valid].max()
    assert error <= 5e-5
    assert np.isfinite(logits).all()


def test_all_four_groups_of_a_layer_fold_exactly():
    """Of stacked layers; `test_llava_onevision_mbq.py` has listed ones."""
    config, params, sequence, _ = tiny_decoder.vision_language("qwen2_vl_tiny")
    params = tiny_decoder.stack_layers(params)
    apply = functools.partial(decoder.apply, config=config)
    (stack,) = program.blocks(apply, params, sequence)
    assert stack.count == config.layers
    groups = infer_groups(stack, lambda site: True)

    def named(*names):
        return tuple(f"layers.{name}" for name in names)

    found = [(g.sites, g.inspect, g.fold, len(np.unique(g.share))) for g in groups]
    projections = named(*(f"attention.{n}.kernel" for n in ("query", "key", "value")))
    out, down = named("attention.output.kernel", "mlp.down.kernel")
    assert found == [
        (projections, out, named("attention_norm"), config.width),
        (  # the two query heads of a key-value head share their scales
            (out,),
            out,
            named("attention.value.kernel", "attention.value.bias"),
            config.kv_heads * config.head_dim,
        ),
        (
            named("mlp.gate.kernel", "mlp.up.kernel"),
            down,
            named("mlp_norm"),
            config.width,
        ),
        ((down,), down, named("mlp.up.kernel"), config.hidden),
    ]
    weights = stack.weights(params, 1)
    state, sides = jax.jit(stack.enter)(params, sequence)
    side = stack.side(sides, 1)
    run = jax.jit(stack.run)
    before = run(weights, state, side)
    rng = np.random.default_rng(0)
    for group in groups:
        scale = rng.uniform(0.3, 3.0, group.share.size)[group.share]
        folded = fold_scale(weights, group, jnp.asarray(scale, jnp.float32))
        assert relative_change(before, run(folded, state, side)) <= 1e-6


def test_padding_changes_nothing():
    """Rows without their padding, and the same batch padded on the right."""
    params, (x, positions, valid) = tiny_decoder.params(), tiny_decoder.prompt()
    together = np.asarray(
        tiny_decoder.apply(params, (x, positions, valid), config=CONFIG)
    )
    start = np.argmax(VALID, axis=1)
    rolled = decoder.Sequence(
        *(
            np.stack([np.roll(a[b], -start[b], 0) for b in range(3)])
            for a in map(np.asarray, (x, positions, valid))
        )
    )
    right = np.asarray(tiny_decoder.apply(params, rolled, config=CONFIG))
    for b in range(3):
        np.testing.assert_allclose(
            right[b, : 6 - start[b]], together[b, start[b] :], rtol=1e-5, atol=1e-5
        )


def test_low_precision_keeps_its_dtype():
    params = jax.tree.map(
        lambda a: np.asarray(a).astype(jnp.bfloat16), tiny_decoder.params()
    )
    sequence = tiny_decoder.prompt(params)
    assert sequence.x.dtype == jnp.bfloat16
    logits = tiny_decoder.apply(params, sequence, config=CONFIG)
    exact = tiny_decoder.apply(
        tiny_decoder.params(), tiny_decoder.prompt(), config=CONFIG
    )
    assert logits.dtype == jnp.float32
    logits, exact = (np.asarray(a)[VALID] for a in (logits, exact))
    error = np.sqrt(np.mean((logits - exact) ** 2))
    assert 0 < error < 0.03 * exact.std()


def test_stacking_and_unstacking_round_trip():
    params = tiny_decoder.params()
    weight = params["layers"][0]["mlp"]["up"]["kernel"]
    packed = quantize(weight, QuantConfig(bits=4, group_size=32))
    layers = [
        {"mlp": {"up": {"kernel": packed}, "down": {"kernel": weight + i}}}
        for i in range(2)
    ]
    stacked = decoder.stack_layers({**params, "layers": layers})
    assert stacked["layers"]["mlp"]["up"]["kernel"].shape == (2, 32, 64)
    again = decoder.unstack_layers(stacked)["layers"]
    assert jax.tree.structure(again) == jax.tree.structure(layers)
    assert all(map(np.array_equal, *map(jax.tree.leaves, (again, layers))))
    assert decoder.stack_layers(stacked) == stacked  # nothing to do
    given = {**params, "layers": list(layers)}
    decoder.stack_layers_in_place(given)
    assert jax.tree.structure(given) == jax.tree.structure(stacked)
    assert all(map(np.array_equal, *map(jax.tree.leaves, (given, stacked))))
    decoder.stack_layers_in_place(given)  # nothing to do
    mixed = [layers[0], {"mlp": {"up": {"kernel": weight}, "down": {"kernel": weight}}}]
    with pytest.raises(ValueError, match="layer 1 is not stored as layer 0"):
        decoder.stack_layers({**params, "layers": mixed})
    with pytest.raises(ValueError, match="layer 1 is not stored as layer 0"):
        decoder.stack_layers_in_place({**params, "layers": mixed})
    assert len(mixed) == 2  # as they were


def test_draws_depend_on_names_only():
    two = decoder.DecoderConfig(**{**SIZES, "layers": 2})
    one = dataclasses.replace(two, layers=1, tied=True)
    one, two = (decoder.init(jax.random.key(0), config) for config in (one, two))
    assert "head" not in one
    for a, b in zip(
        *map(jax.tree.leaves, (one["layers"], two["layers"][:1])), strict=1
    ):
        np.testing.assert_array_equal(a, b)
    first, second = (np.asarray(each["mlp"]["up"]["kernel"]) for each in two["layers"])
    assert (first != second).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 0}, "layers must be a positive int, got 0"),
        ({"width": 4.0}, r"width must be a positive int, got 4\.0"),
        ({"heads": True}, "heads must be a positive int, got True"),
        ({"tied": 1}, "tied must be a bool, got 1"),
        ({"kv_heads": 3}, "kv_heads must divide heads 2: 3"),
        ({"head_dim": 3}, "head_dim must be even, got 3"),
        ({"norm_eps": 0.0}, r"norm_eps must be a positive number, got 0\.0"),
        ({"rope_base": float("inf")}, "rope_base must be a positive number, got inf"),
        ({"rope_sections": (1, 1, 1)}, r"half of head_dim 2, got \(1, 1, 1\)"),
    ],
)
def test_config_errors(change, message):
    with pytest.raises(ValueError, match=message):
        decoder.DecoderConfig(**{**SIZES, **change})


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": np.zeros((3, 6, 31))}, ValueError, r"x must be \[batch, slots, 32\]"),
        ({"x": np.zeros((3, 0, 32))}, ValueError, "and not empty"),
        (
            {"positions": np.zeros((3, 3, 6), int)},  # only with M-RoPE
            ValueError,
            r"positions must be \(3, 6\), got \(3, 3, 6\)",
        ),
        ({"positions": np.zeros((3, 6))}, TypeError, "integers, got float64"),
        ({"valid": np.zeros((3, 5), bool)}, ValueError, r"got \(3, 5\)"),
        ({"valid": np.zeros((3, 6), int)}, TypeError, "valid must be bool"),
    ],
)
def test_sequence_errors(change, error, message):
    sequence = tiny_decoder.prompt()._replace(**change)
    with pytest.raises(error, match=message):
        decoder.apply(tiny_decoder.params(), sequence, config=CONFIG)


def test_text_errors():
    params = tiny_decoder.params()
    with pytest.raises(ValueError, match=r"tokens must be \[batch, slots\]"):
        decoder.text(params, jnp.zeros(3, int))
    with pytest.raises(ValueError, match=r"valid must be \(1, 3\), got \(3,\)"):
        decoder.text(params, jnp.zeros((1, 3), int), jnp.ones(3, bool))
