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

from jeff.models.chat.tokens import masks
from jeff.models.qwen2_vl.config import Config, VisionConfig, config_from_json
from jeff.models.qwen2_vl.grids import check_grids, patch_layout
from jeff.models.qwen2_vl.layout import layout, model_inputs, rope_positions
from jeff.models.qwen2_vl.model import (
    apply,
    embed,
    features,
    init,
    rename,
    tensor_table,
)
from jeff.models.qwen2_vl.pictures import (
    PictureConfig,
    picture_config_from_json,
    picture_grid,
    picture_patches,
    smart_resize,
)
from jeff.models.qwen2_vl.prompt import IMAGE_TEXT, Processor, prepare, read_processor

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
