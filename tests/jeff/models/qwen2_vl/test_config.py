"""Sizes read from config.json, in the forms it has had."""

import dataclasses
import json

import pytest
from support import qwen2_vl_tiny

from jeff.models import qwen2_vl


@pytest.fixture(scope="module")
def nested():
    if not qwen2_vl_tiny.FOLDER.exists():
        pytest.skip("golden folder qwen2_vl_tiny is absent from tests/golden")
    return json.loads((qwen2_vl_tiny.FOLDER / "config.json").read_text())


def test_flat_and_nested_forms_are_one(nested):
    """On the hub the text sizes stand beside vision_config, with older names."""
    config = qwen2_vl.config_from_json(nested)
    assert config.decoder.rope_sections == (2, 3, 3)
    assert (config.decoder.kv_heads, config.decoder.qkv_bias) == (2, True)
    assert (config.vision.hidden, config.vision.pixels) == (64, 1176)
    assert (config.image_token, config.video_token) == (158, 159)
    flat = {k: v for k, v in nested.items() if k != "text_config"} | nested[
        "text_config"
    ]
    rope = flat.pop("rope_parameters")
    flat["model_type"] = "qwen2_vl"
    flat["rope_theta"] = rope["rope_theta"]
    flat["rope_scaling"] = {"type": "mrope", "mrope_section": rope["mrope_section"]}
    flat["vision_config"] = {
        **flat["vision_config"],
        "in_chans": flat["vision_config"].pop("in_channels"),
        "spatial_patch_size": 14,
    }
    assert qwen2_vl.config_from_json(flat) == config


def test_defaults_are_those_of_transformers(nested):
    text = {k: v for k, v in nested["text_config"].items() if "rope" not in k}
    text.pop("rms_norm_eps")
    text |= {"hidden_size": 512, "tie_word_embeddings": True}
    vision = {**nested["vision_config"], "hidden_size": 512}
    config = qwen2_vl.config_from_json(
        {**nested, "text_config": text, "vision_config": vision}
    )
    assert config.decoder.rope_sections == (16, 24, 24)
    assert (config.decoder.rope_base, config.decoder.norm_eps) == (1e6, 1e-5)
    assert config.decoder.tied


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "qwen2_5_vl"}, "model_type must be 'qwen2_vl'"),
        ({"vision_config": {"depth": 2}}, "lacks embed_dim, num_heads, hidden_size"),
        ({"text_config": {"vocab_size": 9}}, "lacks hidden_size, intermediate_size"),
        ({"text": {"hidden_act": "gelu"}}, "hidden_act = 'gelu'"),
        ({"text": {"rope_scaling": {"rope_type": "yarn"}}}, "rope_type"),
        ({"vision": {"hidden_act": "gelu"}}, "must be 'quick_gelu', got 'gelu'"),
        ({"vision": {"rope_parameters": {"rope_type": "yarn"}}}, "must be 'axial'"),
        ({"vision": {"num_heads": 3}}, "heads must divide width 32"),
        ({"vision": {"depth": 0}}, "layers must be a positive int, got 0"),
        ({"vision": {"hidden_size": 32}}, "decoder's width 64, got 32"),
        ({"vision": {"depth": "2"}}, "vision_config.depth must be an int, got '2'"),
        ({"vision": {"mlp_ratio": "4"}}, "vision_config.mlp_ratio must be a number"),
        ({"vision_config": "x"}, "vision_config must be an object, got 'x'"),
        ({"text": {"rope_scaling": "x"}}, "rope_scaling must be an object, got 'x'"),
        (
            {"text": {"rope_scaling": {"mrope_section": [1.5]}}},
            r"mrope_section must be a list of ints, got \[1\.5\]",
        ),
        ({"text": {"tie_word_embeddings": "no"}}, "must be a bool, got 'no'"),
        ({"image_token_id": 160}, "image_token must be in the vocabulary of 160"),
    ],
)
def test_what_is_not_supported_is_said(nested, changes, words):
    config = json.loads(json.dumps(nested))
    for part in ("text", "vision"):
        config[f"{part}_config"] |= changes.pop(part, {}) if part in changes else {}
    if "rope_scaling" in config["text_config"]:
        del config["text_config"]["rope_parameters"]
    with pytest.raises(ValueError, match=words):
        qwen2_vl.config_from_json({**config, **changes})


def test_the_decoder_needs_sections(nested):
    config = qwen2_vl.config_from_json(nested)
    text = dataclasses.replace(config.decoder, rope_sections=None)
    with pytest.raises(ValueError, match="rope_sections must be given"):
        dataclasses.replace(config, decoder=text)
