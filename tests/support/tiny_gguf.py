"""A GGUF file of the tiny Llama of tests/golden, written as converters write them."""

import json

import gguf
import numpy as np
from tokenizers.pre_tokenizers import ByteLevel

from jeff.io import checkpoint

BLOCK = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
TOKENS = [
    "<|end|>",
    "<|user|>",
    "Paris",
    "ab",
    "abc",
    "12",
    *sorted(ByteLevel.alphabet()),
]
TYPES = [3, 3, 4, *[1] * 259]


def pairs_from_halves(rows, heads):
    """Rows of a head as interleaved pairs: row (i, j) of 2 x half becomes (j, i)."""
    out = np.empty_like(rows)
    size = len(rows) // heads
    for head in range(heads):
        for i in range(size):
            half, j = divmod(i, size // 2)
            out[head * size + 2 * j + half] = rows[head * size + i]
    return out


def gguf_name(name):
    stem = name.removesuffix(".weight")
    whole = {"model.embed_tokens": "token_embd", "model.norm": "output_norm"}
    if stem in whole:
        return whole[stem] + ".weight"
    _, _, number, rest = stem.split(".", 3)
    return f"blk.{number}.{BLOCK[rest]}.weight"


def write(path, folder, *, architecture="llama", change=None, leave=(), tokenizer=None):
    """Writes the file.

    `change` are keys to add or replace, ``None`` leaves one out; `leave` are tensors
    not to write; `tokenizer` replaces keys of the tokenizer.
    """
    config, tensors = checkpoint.read_checkpoint(folder)
    writer = gguf.GGUFWriter(path, architecture)
    keys = {
        "embedding_length": config["hidden_size"],
        "feed_forward_length": config["intermediate_size"],
        "block_count": config["num_hidden_layers"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        "rope.freq_base": config["rope_parameters"]["rope_theta"],
        "rope.dimension_count": config["head_dim"],
        "context_length": config["max_position_embeddings"],
        **(change or {}),
    }
    for key, value in keys.items():
        add = {
            int: writer.add_uint32,
            float: writer.add_float32,
            str: writer.add_string,
        }
        if value is not None:
            add[type(value)](f"{architecture}.{key}", value)
    given = {"model": "gpt2", "pre": "smollm", **(tokenizer or {})}
    writer.add_tokenizer_model(given["model"])
    writer.add_tokenizer_pre(given["pre"])
    writer.add_token_list(TOKENS)
    writer.add_token_types(TYPES)
    writer.add_token_merges(["a b", "ab c", "1 2"])
    writer.add_eos_token_id(given.get("eos", 0))
    if "eot" in given:
        writer.add_eot_token_id(given["eot"])
    writer.add_chat_template("{{ messages[0]['content'] }}")
    heads = {
        "self_attn.q_proj.weight": config["num_attention_heads"],
        "self_attn.k_proj.weight": config["num_key_value_heads"],
    }
    for name in tensors:
        if name in leave:
            continue
        array = np.asarray(tensors[name], np.float32)
        for end, count in heads.items():
            if name.endswith(end):
                array = pairs_from_halves(array, count)
        writer.add_tensor(gguf_name(name), array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def copy_config(folder, to, **change):
    """The folder's configuration with other values, written to another one."""
    config = json.loads((folder / "config.json").read_text())
    (to / "config.json").write_text(json.dumps({**config, **change}))
