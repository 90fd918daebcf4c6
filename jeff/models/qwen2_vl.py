"""Qwen2-VL: pictures of any size before a decoder with three-way rotary positions.

Plain functions of nested dictionaries: ``vision`` (the tower), ``projector`` (its
merger) and ``decoder``. Inputs are a dictionary of arrays of static shapes, made on the
host by `prepare` or `model_inputs`::

    tokens          int32 [B, N]
    valid           bool [B, N], false at padding
    positions       int32 [3, B, N], M-RoPE
    feature_index   int32 [B, N], merged feature that stands at a token, -1 for text
    patches         float [P, channels * frames * patch * patch]
    patch_position  int32 [P, 2]
    patch_segment   int32 [P], number of the picture, -1 for padding

The last four are absent where there is no picture. A patch may attend to all patches of
its own picture, so many pictures in one batch cost ``P ** 2``; map over samples
(`jax.vmap`) where that matters. Listed blocks are unrolled, stacked ones
(`jeff.models.decoder.stack_layers`) scanned, in the tower as in the decoder.

References:
  Wang et al., Qwen2-VL, arXiv 2409.12191.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jeff import prng
from jeff.models import decoder, qwen2_vl_vision
from jeff.models.chat_tokens import masks
from jeff.models.qwen2_vl_config import Config, VisionConfig, config_from_json
from jeff.models.qwen2_vl_grids import check_grids, patch_layout
from jeff.models.qwen2_vl_layout import layout, model_inputs, rope_positions
from jeff.models.qwen2_vl_pictures import (
    PictureConfig,
    picture_config_from_json,
    picture_grid,
    picture_patches,
    smart_resize,
)
from jeff.models.qwen2_vl_prompt import (
    IMAGE_TEXT,
    Processor,
    prepare,
    read_processor,
)
from jeff.models.tensors import Tensor, decoder_tensors

__all__ = [
    "IMAGE_TEXT",
    "Config",
    "PictureConfig",
    "Processor",
    "VisionConfig",
    "apply",
    "check_grids",
    "config_from_json",
    "embed",
    "features",
    "init",
    "layout",
    "masks",
    "model_inputs",
    "patch_layout",
    "picture_config_from_json",
    "picture_grid",
    "picture_patches",
    "prepare",
    "read_processor",
    "rename",
    "rope_positions",
    "smart_resize",
    "tensor_table",
]


def init(key: jax.Array, config: Config, *, dtype: Any = jnp.float32) -> dict[str, Any]:
    """Random parameters: matrices normal with variance one over their inputs.

    Args:
      key: Random key.
      config: Sizes.
      dtype: Floating dtype of the parameters.

    Returns:
      ``vision``, ``projector`` and ``decoder``.
    """
    vision, projector = qwen2_vl_vision.init(
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
        *qwen2_vl_vision.vision_tensors(config.vision),
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
    x = qwen2_vl_vision.encode(
        params["vision"],
        inputs["patches"],
        inputs["patch_position"],
        inputs["patch_segment"],
        config=config.vision,
    )
    return qwen2_vl_vision.merge(params["projector"], x, config=config.vision)


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
