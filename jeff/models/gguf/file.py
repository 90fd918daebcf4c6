"""GGUF files of Llama models, as if they were Hugging Face checkpoints.

The format has its own names and keys, and holds the rows of query and key matrices in
an order for which adjacent channels rotate together. Here they get their usual names
and the usual order, so that everything behind is the same.

References:
  github ggml-org/ggml, docs/gguf.md; the order of rows: github ggml-org/llama.cpp,
  convert_hf_to_gguf.py, ``permute``.
"""

import importlib
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Gguf", "GgufTensors", "read_gguf", "require"]

_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_BLOCK_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_KEYS = {  # our spelling of the key: that of config.json
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "block_count": "num_hidden_layers",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.freq_base": "rope_theta",
    "expert_count": "num_experts",
    "context_length": "max_position_embeddings",
}


class Gguf(NamedTuple):
    """What a file holds.

    Attributes:
      config: The sizes, spelled as in ``config.json``.
      tensors: By Hugging Face names, dequantized when looked up.
      fields: Every key of the file; ``contents()`` of a field is its value.
    """

    config: dict[str, Any]
    tensors: "GgufTensors"
    fields: Mapping[str, Any]


class GgufTensors(Mapping[str, np.ndarray]):
    """Dense float32 tensors of a file by their Hugging Face names.

    Args:
      tensors: The reader's tensors.
      heads: Query heads.
      kv_heads: Key and value heads.
    """

    def __init__(self, tensors: Any, *, heads: int, kv_heads: int):
        """Names the tensors."""
        self._tensors = {hub_name(t.name): t for t in tensors}
        self._heads = {"q_proj": heads, "k_proj": kv_heads}

    def __getitem__(self, name: str) -> np.ndarray:
        """Dequantizes a tensor."""
        tensor = self._tensors[name]
        dense = require("gguf").dequantize(tensor.data, tensor.tensor_type)
        dense = np.asarray(dense, np.float32)
        heads = self._heads.get(name.split(".")[-2])
        return dense if heads is None else halves_from_pairs(dense, heads)

    def __iter__(self) -> Iterator[str]:
        """Names, in the order of the file."""
        return iter(self._tensors)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._tensors)

    def __contains__(self, name: object) -> bool:
        """Whether there is such a tensor; nothing is read."""
        return name in self._tensors

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, without dequantizing it.

        Args:
          name: Its name.

        Returns:
          The shape; the file keeps it in the opposite order.

        Raises:
          KeyError: If there is none of that name.
        """
        return tuple(int(n) for n in reversed(self._tensors[name].shape))


def read_gguf(path: str | os.PathLike[str]) -> Gguf:
    """Opens a GGUF file of a Llama model.

    Args:
      path: The file; it is mapped into memory, and nothing of a tensor is read here.

    Returns:
      Its sizes, tensors and keys.

    Raises:
      ImportError: If the ``gguf`` package is not installed.
      ValueError: If the file is missing, cut short or no GGUF file, is of another
        architecture, or lacks a size (all that are lacking are named).
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    gguf = require("gguf")
    try:
        reader = gguf.GGUFReader(path)
    except (ValueError, IndexError, KeyError, OSError, UnicodeError) as error:
        text = f"{path} is cut short or no GGUF file: {error}"
        raise ValueError(text) from error
    fields = reader.fields
    kind = _value(fields, "general.architecture")
    if kind != "llama":
        raise ValueError(f"{path} must be of architecture 'llama', it is {kind!r}")
    config = _config(fields, path)
    tensors = GgufTensors(
        reader.tensors,
        heads=config["num_attention_heads"],
        kv_heads=config["num_key_value_heads"],
    )
    config["tie_word_embeddings"] = "lm_head.weight" not in tensors
    if "model.embed_tokens.weight" in tensors:
        config["vocab_size"] = tensors.shape("model.embed_tokens.weight")[0]
    return Gguf(config, tensors, fields)


def hub_name(name: str) -> str:
    """The Hugging Face name of a tensor.

    Args:
      name: Its name in a GGUF file.

    Returns:
      The name; unknown ones stay as they are.

    Examples:
      >>> hub_name("blk.12.attn_q.weight"), hub_name("rope_freqs.weight")
      ('model.layers.12.self_attn.q_proj.weight', 'rope_freqs.weight')
    """
    stem, _, kind = name.rpartition(".")
    if stem in _NAMES:
        return f"{_NAMES[stem]}.{kind}"
    match = re.fullmatch(r"blk\.(\d+)\.(\w+)", stem)
    if match is None or match.group(2) not in _BLOCK_NAMES:
        return name
    return f"model.layers.{match.group(1)}.{_BLOCK_NAMES[match.group(2)]}.{kind}"


def halves_from_pairs(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a query or key matrix in the order for rotating halves of a head.

    In the file, rows ``2i`` and ``2i + 1`` of a head rotate together; here, rows ``i``
    and ``i + head_dim / 2`` do.

    Args:
      rows: ``[heads * head_dim, ...]``.
      heads: Heads.

    Returns:
      The same rows in the other order.

    Examples:
      >>> halves_from_pairs(np.arange(8), heads=2)
      array([0, 2, 1, 3, 4, 6, 5, 7])
    """
    rest = rows.shape[1:]
    pairs = rows.reshape(heads, -1, 2, *rest)
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(rows.shape)


def require(package: str) -> Any:
    """An optional package.

    Args:
      package: Its name.

    Returns:
      The module.

    Raises:
      ImportError: If it is not installed, with what to install.

    Examples:
      >>> require("no_such_package")
      Traceback (most recent call last):
        ...
      ImportError: no_such_package is not installed: pip install 'jeff[models]'
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise ImportError(
            f"{package} is not installed: pip install 'jeff[models]'"
        ) from None


def _value(fields: Mapping[str, Any], key: str) -> Any:
    return fields[key].contents() if key in fields else None


def _config(fields: Mapping[str, Any], path: pathlib.Path) -> dict[str, Any]:
    """The file's sizes in the spelling of ``config.json``."""
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
    }
    for key, name in _KEYS.items():
        value = _value(fields, f"llama.{key}")
        if isinstance(value, float):  # a float32 as its shortest decimal, such as 1e-05
            value = float(str(np.float32(value)))
        if value is not None:
            config[name] = value
    missing = [
        f"llama.{key}"
        for key in (*list(_KEYS)[:4], "attention.layer_norm_rms_epsilon")
        if _KEYS[key] not in config
    ]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}")
    heads = config["num_attention_heads"]
    config.setdefault("num_key_value_heads", heads)
    head_dim = config.get("head_dim", config["hidden_size"] // max(heads, 1))
    rotated = _value(fields, "llama.rope.dimension_count")
    if rotated not in (None, head_dim):
        config["partial_rotary_factor"] = rotated / head_dim
    scaling = _value(fields, "llama.rope.scaling.type")
    if scaling not in (None, "none"):
        config["rope_scaling"] = {"rope_type": scaling}
    if _value(fields, "llama.attention.sliding_window"):
        config["layer_types"] = ["sliding_attention"]
    bos, eos, eot = (
        _value(fields, f"tokenizer.ggml.{word}_token_id")
        for word in ("bos", "eos", "eot")
    )
    stops = [t for t in dict.fromkeys((eos, eot)) if t is not None]
    if bos is not None:
        config["bos_token_id"] = bos
    if stops:  # of a text, and of a turn of a chat
        config["eos_token_id"] = stops if len(stops) > 1 else stops[0]
    return config
