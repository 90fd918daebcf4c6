"""Sizes and special tokens of Qwen2-VL, and reading them from a checkpoint."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from jeff.models.decoder.config import DecoderConfig
from jeff.models.decoder.from_json import decoder_config_from_json
from jeff.models.json_fields import check_fields, section

__all__ = ["Config", "VisionConfig", "config_from_json"]

_FIELDS = {
    "tie_word_embeddings": "a bool",
    "image_token_id": "an int",
    "video_token_id": "an int",
}
_REQUIRED = ("depth", "embed_dim", "num_heads", "hidden_size")
_TOWER = {
    **dict.fromkeys(_REQUIRED, "an int"),
    **dict.fromkeys(("in_channels", "in_chans", "patch_size"), "an int"),
    **dict.fromkeys(("temporal_patch_size", "spatial_merge_size"), "an int"),
    "mlp_ratio": "a number",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """Sizes of the tower and of the merger behind it.

    Attributes:
      width: Channels of a patch.
      layers: Transformer blocks.
      heads: Attention heads; the head size must be a multiple of four.
      hidden: Channels inside the MLP.
      out: Channels of a merged feature, the decoder's width.
      channels: Channels of a picture.
      patch: Side of a patch in pixels.
      frames: Frames a patch spans; a picture is repeated that often.
      merge: Side in patches of the square that becomes one feature.
      norm_eps: Added to the variance in layer norms.
      rope_base: Base of the rotary angles.
      scores: Attention scores held at once. Queries are taken in pieces, so that a
        layer needs no array of ``heads * patches ** 2`` scores but about three of at
        most ``max(scores, heads * patches)`` float32 numbers: 64 MiB each by default.

    Raises:
      ValueError: If a size is no positive int, `heads` does not divide `width`, or the
        head size is no multiple of four.

    Examples:
      >>> tower = VisionConfig(width=32, layers=2, heads=2, hidden=64, out=64)
      >>> tower.pixels  # numbers in a patch: 3 channels, 2 frames, 14 x 14
      1176
    """

    width: int
    layers: int
    heads: int
    hidden: int
    out: int
    channels: int = 3
    patch: int = 14
    frames: int = 2
    merge: int = 2
    norm_eps: float = 1e-6
    rope_base: float = 10000.0
    scores: int = 2**24

    def __post_init__(self) -> None:
        """Checks the sizes."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is int and (type(value) is not int or value < 1):
                raise ValueError(f"{field.name} must be a positive int, got {value!r}")
            if not 0 < value < math.inf:
                raise ValueError(
                    f"{field.name} must be a positive number, got {value!r}"
                )
        if self.width % (4 * self.heads):
            raise ValueError(
                f"heads must divide width {self.width} into multiples of 4, "
                f"got {self.heads}"
            )

    @property
    def pixels(self) -> int:
        """Numbers in a patch: channels, frames, rows, columns."""
        return self.channels * self.frames * self.patch**2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """A Qwen2-VL model.

    Attributes:
      decoder: The text decoder, with M-RoPE sections.
      vision: The vision tower and its merger.
      image_token: Token that stands for one merged feature of a picture.
      video_token: The same for videos, which are refused.

    Raises:
      ValueError: If the merger's features do not have the decoder's width, the decoder
        has no M-RoPE sections, or a token is not in the vocabulary.
    """

    decoder: DecoderConfig
    vision: VisionConfig
    image_token: int = 151655
    video_token: int = 151656

    def __post_init__(self) -> None:
        """Checks that the parts fit."""
        if self.vision.out != self.decoder.width:
            raise ValueError(
                f"vision.out must be the decoder's width {self.decoder.width}, "
                f"got {self.vision.out}"
            )
        if self.decoder.rope_sections is None:
            raise ValueError("decoder.rope_sections must be given (M-RoPE), got None")
        for name in ("image_token", "video_token"):
            token = getattr(self, name)
            if not 0 <= token < self.decoder.vocabulary:
                raise ValueError(
                    f"{name} must be in the vocabulary of {self.decoder.vocabulary}, "
                    f"got {token}"
                )


def config_from_json(config: Mapping[str, Any]) -> Config:
    """The configuration in a checkpoint's ``config.json``.

    Args:
      config: Its content, with the text sizes under ``text_config`` (as `transformers`
        saves them today) or beside ``vision_config`` (as on the hub).

    Returns:
      The sizes; what is absent has the default of `transformers`.

    Raises:
      ValueError: If it is of another model type, a required size is absent (all of the
        tower or all of the text are named), a field is of another type than it is
        read as, or it asks for something else than the published architecture:
        another activation, sliding windows, rotary scaling.

    Examples:
      The published 2B model:

      >>> config = config_from_json({
      ...     "model_type": "qwen2_vl", "vocab_size": 151936, "hidden_size": 1536,
      ...     "intermediate_size": 8960, "num_hidden_layers": 28,
      ...     "num_attention_heads": 12, "num_key_value_heads": 2, "rms_norm_eps": 1e-6,
      ...     "rope_theta": 1000000.0, "tie_word_embeddings": True,
      ...     "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
      ...     "vision_config": {"depth": 32, "embed_dim": 1280, "mlp_ratio": 4,
      ...                       "num_heads": 16, "hidden_size": 1536}})
      >>> config.decoder.head_dim, config.decoder.rope_sections, config.vision.hidden
      (128, (16, 24, 24), 5120)
    """
    if config.get("model_type") != "qwen2_vl":
        raise ValueError(
            f"model_type must be 'qwen2_vl', got {config.get('model_type')!r}"
        )
    check_fields(config, _FIELDS)
    text = dict(section(config, "text_config") or config)
    vision = section(config, "vision_config")
    _check_vision(vision)
    text = {"rms_norm_eps": 1e-5, "rope_theta": 1e6, **text}
    rope = {**section(text, "rope_scaling"), **section(text, "rope_parameters")}
    text["rope_parameters"] = {"mrope_section": (16, 24, 24), **rope}
    tied = config.get("tie_word_embeddings") or text.get("tie_word_embeddings")
    decoder = decoder_config_from_json(text, qkv_bias=True, tied=bool(tied))
    tower = VisionConfig(
        width=vision["embed_dim"],
        layers=vision["depth"],
        heads=vision["num_heads"],
        hidden=int(vision["embed_dim"] * vision.get("mlp_ratio", 4)),
        out=vision["hidden_size"],
        channels=vision.get("in_channels", vision.get("in_chans", 3)),
        patch=vision.get("patch_size", 14),
        frames=vision.get("temporal_patch_size", 2),
        merge=vision.get("spatial_merge_size", 2),
        rope_base=float((vision.get("rope_parameters") or {}).get("rope_theta", 1e4)),
    )
    tokens = {
        name: config[f"{name}_id"]
        for name in ("image_token", "video_token")
        if config.get(f"{name}_id") is not None
    }
    return Config(decoder=decoder, vision=tower, **tokens)


def _check_vision(vision: Mapping[str, Any]) -> None:
    """Refuses a tower that is not described, or not the published one."""
    missing = [name for name in _REQUIRED if vision.get(name) is None]
    if missing:
        raise ValueError(f"vision_config in config.json lacks {', '.join(missing)}")
    check_fields(vision, _TOWER, within="vision_config")
    rope = section(vision, "rope_parameters", within="vision_config")
    check_fields(
        rope, {"rope_theta": "a number"}, within="vision_config.rope_parameters"
    )
    activation = vision.get("hidden_act", "quick_gelu")
    if activation != "quick_gelu":
        raise ValueError(
            f"vision_config.hidden_act must be 'quick_gelu', got {activation!r}"
        )
    kind = rope.get("rope_type", "axial")
    if kind not in ("axial", "default"):
        raise ValueError(f"vision_config rope_type must be 'axial', got {kind!r}")
