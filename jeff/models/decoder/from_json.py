"""Sizes of a decoder from the ``config.json`` of a checkpoint, old and new spellings.

What the decoder here does not compute is refused by name, rather than computed wrongly.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from jeff.models.decoder.config import DecoderConfig
from jeff.models.json_fields import check_fields, section

__all__ = ["decoder_config_from_json"]

_REQUIRED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
)
_EXPECTED = {  # what the decoder computes, where a configuration speaks of it
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "partial_rotary_factor": 1.0,
    "use_mrope": False,
}
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
_FIELDS = {
    **dict.fromkeys((*_REQUIRED, *_EXPERTS), "an int"),
    "head_dim": "an int",
    "num_key_value_heads": "an int",
    "max_window_layers": "an int",
    "sliding_window": "an int",
    "rms_norm_eps": "a number",
    "rope_theta": "a number",
    "use_sliding_window": "a bool",
    "tie_word_embeddings": "a bool",
    "layer_types": "a list of strings",
}
_ROPE_FIELDS = {"rope_theta": "a number", "mrope_section": "a list of ints"}


def decoder_config_from_json(
    config: Mapping[str, Any], *, qkv_bias: bool, tied: bool | None = None
) -> DecoderConfig:
    """The sizes in a text configuration of the Llama or Qwen2 family.

    The rotary base may stand as ``rope_theta``, with ``rope_scaling`` beside it, or in
    ``rope_parameters``, as `transformers` writes it since version 5.

    Args:
      config: A text model's ``config.json``, or ``text_config`` of a larger one.
      qkv_bias: Whether the family has biases at queries, keys and values.
      tied: Whether the output matrix is the embedding; ``None`` reads
        ``tie_word_embeddings``.

    Returns:
      The sizes; what is absent has the default of `transformers`.

    Raises:
      ValueError: If a required field is absent or a field of another type than it is
        read as (all are named), or the model needs what is not computed here: other
        activations or biases, sliding windows, rotary scaling, experts (all fields
        are named, with their values).

    Examples:
      >>> sizes = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 64,
      ...          "num_hidden_layers": 2, "num_attention_heads": 4}
      >>> old = decoder_config_from_json({**sizes, "rope_theta": 5e5}, qkv_bias=False)
      >>> new = {**sizes, "rope_parameters": {"rope_theta": 5e5}}
      >>> old == decoder_config_from_json(new, qkv_bias=False), old.head_dim
      (True, 8)
      >>> scaled = {**sizes, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}}
      >>> decoder_config_from_json(scaled, qkv_bias=False)
      Traceback (most recent call last):
        ...
      ValueError: config.json asks for what is not supported: rope_type = 'yarn'
    """
    missing = [name for name in _REQUIRED if config.get(name) is None]
    if missing:
        raise ValueError(f"config.json lacks {', '.join(missing)}")
    check_fields(config, _FIELDS)
    rope: dict[str, Any] = {}
    for name in ("rope_scaling", "rope_parameters"):
        given = section(config, name)
        check_fields(given, _ROPE_FIELDS, within=name)
        rope |= given
    refused = [f"{name} = {value!r}" for name, value in _refused(config, rope)]
    if refused:
        raise ValueError(
            f"config.json asks for what is not supported: {', '.join(refused)}"
        )
    heads, width = config["num_attention_heads"], config["hidden_size"]
    head_dim = config.get("head_dim")
    if head_dim is None:
        if heads < 1 or width % heads:
            raise ValueError(
                f"config.json lacks head_dim, and num_attention_heads {heads!r} does "
                f"not divide hidden_size {width!r}"
            )
        head_dim = width // heads
    sections = rope.get("mrope_section")
    return DecoderConfig(
        vocabulary=config["vocab_size"],
        width=width,
        layers=config["num_hidden_layers"],
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=head_dim,
        hidden=config["intermediate_size"],
        norm_eps=config.get("rms_norm_eps") or 1e-6,
        rope_base=rope.get("rope_theta") or config.get("rope_theta") or 10000.0,
        rope_sections=None if sections is None else tuple(sections),
        qkv_bias=qkv_bias,
        tied=bool(config.get("tie_word_embeddings", False)) if tied is None else tied,
    )


def _refused(config, rope) -> Iterator[tuple[str, Any]]:
    for name, expected in _EXPECTED.items():
        if config.get(name) not in (None, expected):
            yield name, config[name]
    for name in _EXPERTS:
        if (config.get(name) or 0) > 1:
            yield name, config[name]
    kind = rope.get("rope_type", rope.get("type"))
    if kind not in (None, "default", "mrope"):
        yield "rope_type", kind
    elif kind == "mrope" and "mrope_section" not in rope:
        yield "mrope_section", None
    kinds = config.get("layer_types") or ()
    if set(kinds) - {"full_attention"}:
        yield "layer_types", sorted(set(kinds))
    layers = config["num_hidden_layers"]
    windows = config.get("use_sliding_window") and config.get("sliding_window")
    if windows and not kinds and config.get("max_window_layers", 28) < layers:
        yield "sliding_window", config["sliding_window"]
