"""Qwen2-VL as functions of its parameters, and their names in checkpoints."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jeff import prng
from jeff.models import decoder
from jeff.models.qwen2_vl import vision as vision_tower
from jeff.models.qwen2_vl.config import Config
from jeff.models.tensors import Tensor, decoder_tensors

__all__ = ["apply", "embed", "features", "init", "rename", "tensor_table"]


def init(key: jax.Array, config: Config, *, dtype: Any = jnp.float32) -> dict[str, Any]:
    """Random parameters: matrices normal with variance one over their inputs.

    Args:
      key: Random key.
      config: Sizes.
      dtype: Floating dtype of the parameters.

    Returns:
      ``vision``, ``projector`` and ``decoder``.
    """
    vision, projector = vision_tower.init(
        prng.named_key(key, "vision"), config.vision, dtype=dtype
    )
    text = decoder.init(prng.named_key(key, "decoder"), config.decoder, dtype=dtype)
    return {"vision": vision, "projector": projector, "decoder": text}


def tensor_table(config: Config) -> tuple[Tensor, ...]:
    """The tensors of a checkpoint and where they stand in params.

    Args:
      config: Sizes.

    Returns:
      A row per tensor, under the names of `rename`.
    """
    return (
        *vision_tower.vision_tensors(config.vision),
        *decoder_tensors(config.decoder, prefix=""),
    )


def rename(name: str) -> str:
    """The name in the table of a tensor of any version of the checkpoints.

    Args:
      name: ``visual...`` and ``model.layers...`` as on the hub, or ``model.visual...``
        and ``model.language_model...`` as modules are called today.

    Returns:
      The former.

    Examples:
      >>> rename("model.language_model.norm.weight"), rename("model.visual.merger.ln_q")
      ('model.norm.weight', 'visual.merger.ln_q')
    """
    if name.startswith("model.visual."):
        return name.removeprefix("model.")
    if name.startswith("model.language_model."):
        return "model." + name.removeprefix("model.language_model.")
    return name


def features(
    params: Mapping[str, Any], inputs: Mapping[str, jax.Array], *, config: Config
) -> jax.Array:
    """What stands at the image tokens: the tower, then the merger.

    Args:
      params: ``vision`` and ``projector``.
      inputs: ``patches``, ``patch_position`` and ``patch_segment``.
      config: Sizes.

    Returns:
      ``[P / merge**2, width of the decoder]``; rows of padded patches mean nothing.

    Raises:
      ValueError: If shapes do not fit.
    """
    x = vision_tower.encode(
        params["vision"],
        inputs["patches"],
        inputs["patch_position"],
        inputs["patch_segment"],
        config=config.vision,
    )
    return vision_tower.merge(params["projector"], x, config=config.vision)


def embed(
    params: Mapping[str, Any], inputs: Mapping[str, jax.Array], *, config: Config
) -> decoder.Sequence:
    """What the decoder reads: embedded text with features in it.

    Args:
      params: The parameters.
      inputs: From `model_inputs`.
      config: Sizes.

    Returns:
      Embeddings ``[B, N, width]`` in the dtype of the decoder, positions and `valid`.

    Raises:
      ValueError: If an input is absent (all are named), or shapes do not fit.
    """
    wanted = ["tokens", "valid", "positions"]
    if "patches" in inputs:
        wanted += ["feature_index", "patch_position", "patch_segment"]
    if missing := [name for name in wanted if name not in inputs]:
        raise ValueError(f"inputs lack {', '.join(missing)}; got {sorted(inputs)}")
    x = decoder.embed(params["decoder"], inputs["tokens"])
    if "patches" in inputs:
        table = features(params, inputs, config=config).astype(x.dtype)
        index = inputs["feature_index"]
        rows = jnp.take(table, jnp.maximum(index, 0), axis=0, mode="clip")
        x = jnp.where(index[..., None] >= 0, rows, x)
    return decoder.Sequence(x, inputs["positions"], inputs["valid"])


def apply(
    params: Mapping[str, Any], inputs: Mapping[str, jax.Array], *, config: Config
) -> jax.Array:
    """Scores of the next token at every slot.

    Args:
      params: The parameters.
      inputs: From `model_inputs`.
      config: Sizes.

    Returns:
      float32 ``[B, N, vocabulary]``.

    Raises:
      ValueError: As `embed`.

    Examples:
      >>> import numpy as np
      >>> from jeff.models.qwen2_vl import VisionConfig, model_inputs
      >>> text = decoder.DecoderConfig(vocabulary=9, width=8, layers=1, heads=2,
      ...                              kv_heads=1, head_dim=8, hidden=8,
      ...                              rope_sections=(2, 1, 1))
      >>> tower = VisionConfig(width=8, layers=1, heads=2, hidden=8, out=8, patch=2)
      >>> config = Config(decoder=text, vision=tower, image_token=7, video_token=8)
      >>> tokens = np.array([[0, 1, 7, 7, 2]])  # padding, text, a picture, text
      >>> inputs = model_inputs(tokens, tokens > 0, np.ones((8, 24)), [[1, 2, 4]],
      ...                       config=config)
      >>> params = jax.eval_shape(lambda key: init(key, config), jax.random.key(0))
      >>> jax.eval_shape(lambda p, i: apply(p, i, config=config), params, inputs).shape
      (1, 5, 9)
    """
    sequence = embed(params, inputs, config=config)
    return decoder.apply(params["decoder"], sequence, config=config.decoder)
