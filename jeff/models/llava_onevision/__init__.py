"""LLaVA-OneVision: SigLIP tiles, a projector, and a Qwen2 decoder.

Plain functions of nested dictionaries: ``vision`` (`jeff.models.vision.siglip`),
``projector`` (``up`` and ``down`` with an exact GELU between them, and ``newline``) and
``decoder`` (`jeff.models.decoder`). Inputs are a dictionary of arrays of static shapes,
made on the host by `prepare` from pictures and chats, or by `model_inputs` from tokens
and tiles::

    tokens          int32 [B, N]
    valid           bool [B, N], false at padding
    positions       int32 [B, N]
    pixel_values    float [B, tiles, 3, image_size, image_size]
    feature_index   int32 [B, N, 4], rows of a sample's features, -1 for text
    feature_weight  float32 [B, N, 4], their weights

The last three are absent where there is no picture. Nothing in a sample depends on the
other samples of its batch. Videos are not supported.

References:
  Li et al., LLaVA-OneVision, arXiv 2408.03326.
"""

from jeff.models.chat.tokens import masks
from jeff.models.decoder.config import DecoderConfig
from jeff.models.llava_onevision.config import PINPOINTS, Config, config_from_json
from jeff.models.llava_onevision.layout import layout, model_inputs
from jeff.models.llava_onevision.model import (
    apply,
    embed,
    features,
    init,
    rename,
    tensor_table,
)
from jeff.models.llava_onevision.pictures import (
    PictureConfig,
    picture_config_from_json,
    picture_tiles,
)
from jeff.models.llava_onevision.prompt import Processor, prepare, read_processor
from jeff.models.llava_onevision.tiles import best_pinpoint, picture_rows, tile_count
from jeff.models.vision.siglip_config import SiglipConfig

__all__ = [
    "PINPOINTS",
    "Config",
    "DecoderConfig",
    "PictureConfig",
    "Processor",
    "SiglipConfig",
    "apply",
    "best_pinpoint",
    "config_from_json",
    "embed",
    "features",
    "init",
    "layout",
    "masks",
    "model_inputs",
    "picture_config_from_json",
    "picture_rows",
    "picture_tiles",
    "prepare",
    "read_processor",
    "rename",
    "tensor_table",
    "tile_count",
]
