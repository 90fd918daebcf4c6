"""Configurations of Llama and Qwen2: what is read, and what is refused."""

import pytest

from jeff.models import decoder, llama

SIZES = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 64,
    "num_hidden_layers": 2, "num_attention_heads": 4,
}  # fmt: skip
LLAMA = {"model_type": "llama", **SIZES}
QWEN = {"model_type": "qwen2", **SIZES}


def test_defaults_and_both_spellings_of_the_rotary_base():
    expected = decoder.DecoderConfig(
        vocabulary=96, width=32, layers=2, heads=4, kv_heads=4, head_dim=8, hidden=64
    )
    assert llama.config_from_json(LLAMA).decoder == expected
    for given in (
        {"rope_theta": 5e5},
        {"rope_theta": 5e5, "rope_scaling": None},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
        {"rope_theta": 5e5, "rope_scaling": {"type": "default"}},
    ):
        assert llama.config_from_json({**LLAMA, **given}).decoder.rope_base == 5e5


def test_all_fields_are_read():
    found = llama.config_from_json(
        {
            **QWEN,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": True,
            "hidden_act": "silu",
            "use_sliding_window": False,  # so the window is not in use
            "sliding_window": 131072,
            "max_window_layers": 0,
        }
    ).decoder
    assert (found.kv_heads, found.head_dim, found.norm_eps) == (2, 16, 1e-5)
    assert found.qkv_bias and found.tied
    names = {row.name for row in llama.tensor_table(llama.Config(decoder=found))}
    assert "model.layers.1.self_attn.v_proj.bias" in names
    assert "lm_head.weight" not in names


def test_missing_fields_are_all_named():
    config = {k: v for k, v in LLAMA.items() if not k.startswith("num")}
    with pytest.raises(
        ValueError, match="lacks num_hidden_layers, num_attention_heads$"
    ):
        llama.config_from_json(config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
        ({"attention_bias": True}, "attention_bias = True"),
        ({"mlp_bias": True}, "mlp_bias = True"),
        ({"partial_rotary_factor": 0.5}, r"partial_rotary_factor = 0\.5"),
        ({"num_local_experts": 8}, "num_local_experts = 8"),
        ({"num_experts": 60}, "num_experts = 60"),
        ({"rope_scaling": {"rope_type": "llama3"}}, "rope_type = 'llama3'"),
        ({"rope_scaling": {"type": "linear"}}, "rope_type = 'linear'"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_type = 'yarn'"),
        (
            {"layer_types": ["full_attention", "sliding_attention"]},
            r"layer_types = \['full_attention', 'sliding_attention'\]",
        ),
        (
            {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
            "sliding_window = 8",
        ),
        ({"mlp_bias": True, "num_experts": 2}, "mlp_bias = True, num_experts = 2"),
        ({"head_dim": None, "num_attention_heads": 5}, "lacks head_dim, and .* 5"),
        ({"vocab_size": "96"}, "vocab_size must be an int, got '96'"),
        ({"model_type": "gpt2"}, "one of llama, qwen2, got 'gpt2'"),
    ],
)
def test_refusals(change, message):
    with pytest.raises(ValueError, match=message):
        llama.config_from_json({**LLAMA, **change})
