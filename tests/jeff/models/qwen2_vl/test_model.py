"""Qwen2-VL against the original program, and as an ordinary JAX function."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import qwen2_vl_tiny, tiny_decoder

from jeff.io import checkpoint
from jeff.models import decoder, generation, qwen2_vl, tensors
from jeff.models.decoder import block, rotary
from jeff.models.qwen2_vl import vision as vision_tower

ATOL = 5e-5  # the original ran on torch: sums in another order


@pytest.fixture(scope="module")
def case():
    return qwen2_vl_tiny.load()


@functools.partial(jax.jit, static_argnames="config")
def everything(params, inputs, *, config):
    """What the fixture stores, in one compilation: the model block by block."""
    tower = functools.partial(
        vision_tower.encode,
        patches=inputs["patches"],
        position=inputs["patch_position"],
        segment=inputs["patch_segment"],
        config=config.vision,
    )
    vision = params["vision"]
    seen = {
        "vision_block_out": jnp.stack(
            [tower({**vision, "layers": vision["layers"][:i]}) for i in (1, 2)]
        )
    }
    seen["merged_features"] = qwen2_vl.features(params, inputs, config=config)
    sequence = qwen2_vl.embed(params, inputs, config=config)
    text = config.decoder
    tables = rotary.rotary_tables(
        sequence.positions,
        head_dim=text.head_dim,
        base=text.rope_base,
        sections=text.rope_sections,
    )
    causal = jnp.tril(jnp.ones((sequence.x.shape[1],) * 2, bool))
    allowed = causal & sequence.valid[:, None]
    outputs = [sequence.x]
    for layer in params["decoder"]["layers"]:
        attend = functools.partial(block.attend, allowed=allowed)
        outputs.append(block.block(layer, outputs[-1], tables, attend, config=text))
    seen["block_out"] = jnp.stack(outputs[1:])
    last = block.rms_norm(outputs[-1], params["decoder"]["norm"], eps=text.norm_eps)
    seen["hidden_states"] = jnp.stack([*outputs[:-1], last])
    seen["logits"] = qwen2_vl.apply(params, inputs, config=config)
    return seen


@pytest.fixture(scope="module")
def seen(case):
    return everything(case.params, case.inputs, config=case.config)


@pytest.mark.parametrize("name", ["vision_block_out", "merged_features"])
def test_vision_outputs_are_the_originals(case, seen, name):
    np.testing.assert_allclose(seen[name], case.stored[name], atol=ATOL)


@pytest.mark.parametrize("name", ["block_out", "hidden_states", "logits"])
def test_text_outputs_are_the_originals_at_tokens(case, seen, name):
    valid = case.inputs["valid"]
    got, want = np.asarray(seen[name]), case.stored[name]
    np.testing.assert_allclose(got[..., valid, :], want[..., valid, :], atol=ATOL)
    assert np.isfinite(got).all()


def test_loss_is_the_originals(case, seen):
    loss = case.loss(seen["logits"], case.stored["labels"])
    np.testing.assert_allclose(loss, case.stored["loss"], atol=ATOL)


def test_greedy_tokens_are_the_originals(case):
    """Sample 0 alone and as it stands, padded, in the batch."""
    embed = jax.jit(functools.partial(qwen2_vl.embed, config=case.config))
    found = generation.generate(
        tiny_decoder.stack_layers(case.params["decoder"]),
        embed(case.params, case.inputs),
        config=case.config.decoder,
        max_new_tokens=8,
    )
    np.testing.assert_array_equal(found.tokens[0], case.stored["greedy8_sample0"])


def test_mapped_over_samples_with_padded_patches(case, seen):
    """One sample at a time, all of one shape; tower and decoder scanned, in pieces."""
    stored, config = case.stored, case.config
    starts = np.cumsum([0, *stored["image_grid_thw"].prod(1)])
    samples = [
        qwen2_vl.model_inputs(
            stored["input_ids"][i : i + 1],
            stored["attention_mask"][i : i + 1],
            stored["pixel_values"][starts[i] : starts[i + 1]],
            stored["image_grid_thw"][i : i + 1],
            config=config,
            patches=28,
        )
        for i in (0, 1)
    ]
    stacked = {
        name: decoder.stack_layers(part) if "layers" in part else part
        for name, part in case.params.items()
    }
    tower = dataclasses.replace(config.vision, scores=2 * 28 * 3)  # 3 queries at once
    apply = functools.partial(
        qwen2_vl.apply, config=dataclasses.replace(config, vision=tower)
    )
    inputs = {name: np.stack([s[name] for s in samples]) for name in samples[0]}
    logits = jax.jit(jax.vmap(apply, in_axes=(None, 0)))(stacked, inputs)[:, 0]
    valid = case.inputs["valid"]
    np.testing.assert_allclose(logits[valid], seen["logits"][valid], atol=2e-5)


def test_text_alone(case):
    """Without a picture nothing of the tower is needed, and positions are plain."""
    tokens = np.array([[0, 5, 6], [7, 8, 9]])
    inputs = qwen2_vl.model_inputs(tokens, tokens > 0, [], [], config=case.config)
    assert sorted(inputs) == ["positions", "tokens", "valid"]
    got = jax.eval_shape(case.apply, {"decoder": case.params["decoder"]}, inputs)
    assert got.shape == (2, 3, 160)


def test_half_precision_stays_half(case):
    half = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, jnp.bfloat16), case.params
    )
    embed = functools.partial(qwen2_vl.embed, config=case.config)
    assert jax.eval_shape(embed, half, case.inputs).x.dtype == jnp.bfloat16


def test_saved_names_load_again(case):
    """Any version's names; what is written are the names of the fixture."""
    table = qwen2_vl.tensor_table(case.config)
    named = tensors.to_named(table, jax.device_get(case.params))
    read = checkpoint.read_checkpoint(qwen2_vl_tiny.FOLDER).tensors
    assert sorted(named) == sorted(read)
    for name in ("visual.patch_embed.proj.weight", "model.layers.1.mlp.up_proj.weight"):
        np.testing.assert_array_equal(named[name], read[name])
    today = {
        "model." + n
        if n.startswith("visual.")
        else n.replace("model.", "model.language_model.")
        for n in named
    }
    assert {qwen2_vl.rename(name) for name in today} == set(named)


def test_inputs_that_are_absent_are_named(case):
    inputs = {k: case.inputs[k] for k in ("tokens", "valid", "patches")}
    with pytest.raises(ValueError, match="lack positions, feature_index, patch_pos"):
        case.apply(case.params, inputs)


def test_masks_refuse_answers_that_are_no_text(case):
    labels = np.full(case.inputs["tokens"].shape, -100)
    with pytest.raises(ValueError, match=r"shape \(2, 22\), got \(2, 3\)"):
        qwen2_vl.masks(case.inputs, labels[:, :3])
    labels[0, 4] = 5
    with pytest.raises(ValueError, match="-100 at image tokens"):
        qwen2_vl.masks(case.inputs, labels)
