"""Text models of the Llama family, SmolLM2 and Qwen2: the decoder and nothing else.

References:
  Touvron et al., LLaMA, arXiv 2302.13971.
  Yang et al., Qwen2 Technical Report, arXiv 2407.10671.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from jeff.models import decoder
from jeff.models.decoder.config import DecoderConfig, Sequence
from jeff.models.decoder.from_json import decoder_config_from_json
from jeff.models.tensors import Tensor, decoder_tensors

__all__ = ["Config", "apply", "config_from_json", "embed", "rename", "tensor_table"]

_QKV_BIAS = {"llama": False, "qwen2": True}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """A text model.

    Attributes:
      decoder: Sizes.
    """

    decoder: DecoderConfig


def config_from_json(config: Mapping[str, Any]) -> Config:
    """The configuration in a checkpoint's ``config.json``.

    Args:
      config: Its content.

    Returns:
      The sizes.

    Raises:
      ValueError: If the model type is another one, a required field is absent, or the
        model needs what is not computed here; all such fields are named.

    Examples:
      >>> config = config_from_json({
      ...     "model_type": "llama", "vocab_size": 49152, "hidden_size": 576,
      ...     "intermediate_size": 1536, "num_hidden_layers": 30,
      ...     "num_attention_heads": 9, "num_key_value_heads": 3, "rms_norm_eps": 1e-5,
      ...     "rope_theta": 100000.0, "tie_word_embeddings": True})
      >>> config.decoder.head_dim, config.decoder.tied
      (64, True)
    """
    kind = config.get("model_type")
    if kind not in _QKV_BIAS:
        known = ", ".join(_QKV_BIAS)
        raise ValueError(f"model_type must be one of {known}, got {kind!r}")
    return Config(decoder=decoder_config_from_json(config, qkv_bias=_QKV_BIAS[kind]))


def tensor_table(config: Config) -> tuple[Tensor, ...]:
    """What a checkpoint holds.

    Args:
      config: Sizes.

    Returns:
      A row per tensor.
    """
    return decoder_tensors(config.decoder)


def rename(name: str) -> str | None:
    """The name in `tensor_table` of a tensor of a checkpoint.

    Args:
      name: What the file calls it.

    Returns:
      The name; ``None`` for tables of rotary angles, which old files hold and nobody
      needs.

    Examples:
      >>> rename("model.layers.0.self_attn.rotary_emb.inv_freq")
      >>> rename("model.norm.weight")
      'model.norm.weight'
    """
    return None if name.endswith(".rotary_emb.inv_freq") else name


def embed(
    params: Mapping[str, Any], inputs: Mapping[str, jax.Array], *, config: Config
) -> Sequence:
    """Tokens as the decoder reads them.

    Args:
      params: Parameters, with ``decoder``.
      inputs: ``tokens`` int ``[batch, slots]``; maybe ``valid`` bool and ``positions``
        int of the same shape, else every slot is valid, and positions count the valid
        slots of a row.
      config: Sizes.

    Returns:
      The sequence.

    Raises:
      ValueError: If ``tokens`` is absent, an input is unknown, or shapes do not fit.

    Examples:
      >>> embed({}, {"token": 1}, config=None)
      Traceback (most recent call last):
        ...
      ValueError: inputs must be tokens, and maybe valid and positions; got token
    """
    del config
    if "tokens" not in inputs or set(inputs) - {"tokens", "valid", "positions"}:
        raise ValueError(
            "inputs must be tokens, and maybe valid and positions; got "
            f"{', '.join(inputs) or 'none'}"
        )
    sequence = decoder.text(params["decoder"], inputs["tokens"], inputs.get("valid"))
    if "positions" in inputs:
        sequence = sequence._replace(positions=inputs["positions"])
    return sequence


def apply(
    params: Mapping[str, Any], inputs: Mapping[str, jax.Array], *, config: Config
) -> jax.Array:
    """Scores of the next token at every slot.

    Args:
      params: Parameters, with ``decoder``.
      inputs: As `embed`.
      config: Sizes.

    Returns:
      float32 ``[batch, slots, vocabulary]``.

    Raises:
      ValueError: As `embed`.

    Examples:
      >>> sizes = {"vocab_size": 8, "hidden_size": 4, "intermediate_size": 4,
      ...          "num_hidden_layers": 1, "num_attention_heads": 2}
      >>> config = config_from_json({"model_type": "qwen2", **sizes})
      >>> params = {"decoder": decoder.init(jax.random.key(0), config.decoder)}
      >>> tokens = jax.numpy.asarray([[5, 1, 2]])
      >>> jax.jit(lambda p, t: apply(p, {"tokens": t}, config=config))(
      ...     params, tokens).shape
      (1, 3, 8)
    """
    sequence = embed(params, inputs, config=config)
    return decoder.apply(params["decoder"], sequence, config=config.decoder)
