"""Sizes and special tokens of LLaVA-OneVision, and reading them from a checkpoint."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from jeff.models.decoder.config import DecoderConfig
from jeff.models.decoder.from_json import decoder_config_from_json
from jeff.models.json_fields import check_fields, section
from jeff.models.vision.siglip_config import SiglipConfig

__all__ = ["PINPOINTS", "Config", "config_from_json"]

PINPOINTS = tuple(
    (384 * rows, 384 * cols) for rows in range(1, 7) for cols in range(1, 7)
)
"""Sizes (height, width) that the published models' pictures are fitted into."""

_FIELDS = {
    "image_grid_pinpoints": "a list of pairs of ints",
    "vision_feature_layer": "an int or a list of ints",
    "multimodal_projector_bias": "a bool",
    "tie_word_embeddings": "a bool",
    **dict.fromkeys(("image_token_index", "image_token_id"), "an int"),
    **dict.fromkeys(("video_token_index", "video_token_id"), "an int"),
}
_SIZES = {
    "hidden_size": 1152,
    "num_hidden_layers": 26,
    "num_attention_heads": 16,
    "intermediate_size": 4304,
    "image_size": 384,
    "patch_size": 14,
}
"""Of the published tower. The default of a tower that is described only in part would
be another one in `transformers`, so that all of them or none must be given."""
_TOWER = {
    **dict.fromkeys((*_SIZES, "num_channels"), "an int"),
    "layer_norm_eps": "a number",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """A LLaVA-OneVision model.

    Attributes:
      decoder: The text decoder.
      vision: The vision tower.
      pinpoints: Sizes (height, width) in pixels that pictures are fitted into; all are
        multiples of the tower's `image_size`.
      image_token: Token that stands for one feature of a picture.
      video_token: The same for videos, which are refused.
      feature_layers: States of the tower that are read, side by side; see
        `jeff.models.vision.siglip.hidden_states`.
      drop_first: Whether the first patch of every tile is dropped, as a class token
        would be (``vision_feature_select_strategy`` ``"default"`` instead of
        ``"full"``); the tower has none, so that only samples of several pictures fit.
      max_tiles: Features of a picture beyond those of this many tiles are scaled down.
      projector_bias: Whether the projector has biases.

    Raises:
      ValueError: If a pinpoint is no multiple of the tower's picture, a layer does not
        exist, a token is not in the vocabulary, or `max_tiles` is not positive.
    """

    decoder: DecoderConfig
    vision: SiglipConfig
    pinpoints: tuple[tuple[int, int], ...] = PINPOINTS
    image_token: int = 151646
    video_token: int = 151647
    feature_layers: tuple[int, ...] = (-1,)
    drop_first: bool = False
    max_tiles: int = 9
    projector_bias: bool = True

    def __post_init__(self) -> None:
        """Checks that the parts fit."""
        size, count = self.vision.image_size, self.vision.layers
        if not self.pinpoints:
            raise ValueError("pinpoints must not be empty")
        for point in self.pinpoints:
            if len(point) != 2 or min(point) < 1 or any(side % size for side in point):
                raise ValueError(
                    f"pinpoints must be multiples of the tower's image_size {size}, "
                    f"got {tuple(point)}"
                )
        if not self.feature_layers or not all(
            -count - 1 <= layer <= count for layer in self.feature_layers
        ):
            raise ValueError(
                f"feature_layers must be in [{-count - 1}, {count}], "
                f"got {self.feature_layers}"
            )
        if self.max_tiles < 1:
            raise ValueError(f"max_tiles must be positive, got {self.max_tiles}")
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
      config: Its content.

    Returns:
      The sizes. An absent or empty ``vision_config`` stands for the published tower, as
      in `transformers`; one with any field must have all sizes.

    Raises:
      ValueError: If the model, its tower or its decoder is of another type, a required
        size is absent, a field is of another type than it is read as, or it asks for
        what is not computed here; the field is named.

    Examples:
      The published 7B model:

      >>> config = config_from_json({
      ...     "model_type": "llava_onevision", "vision_config": {},
      ...     "text_config": {"model_type": "qwen2", "vocab_size": 152000,
      ...         "hidden_size": 3584, "intermediate_size": 18944,
      ...         "num_hidden_layers": 28, "num_attention_heads": 28,
      ...         "num_key_value_heads": 4, "rope_theta": 1e6}})
      >>> config.vision.patches, config.decoder.head_dim, len(config.pinpoints)
      (729, 128, 36)
    """
    check_fields(config, _FIELDS)
    text, tower = section(config, "text_config"), section(config, "vision_config")
    check_fields(tower, _TOWER, within="vision_config")
    missing = [name for name in _SIZES if tower and tower.get(name) is None]
    if missing:
        raise ValueError(f"vision_config in config.json lacks {', '.join(missing)}")
    aspect = config.get("vision_aspect_ratio", "anyres_max_9")
    match = re.fullmatch(r"anyres_max_(\d+)", str(aspect))
    select = config.get("vision_feature_select_strategy", "full")
    for name, value, known in (
        ("model_type", config.get("model_type"), "llava_onevision"),
        ("text_config.model_type", text.get("model_type", "qwen2"), "qwen2"),
        (
            "vision_config.model_type",
            tower.get("model_type", "siglip_vision_model"),
            "siglip_vision_model",
        ),
        ("projector_hidden_act", config.get("projector_hidden_act", "gelu"), "gelu"),
        (
            "vision_config.hidden_act",
            tower.get("hidden_act", "gelu_pytorch_tanh"),
            "gelu_pytorch_tanh",
        ),
    ):
        if value != known:
            raise ValueError(f"{name} must be {known!r}, got {value!r}")
    if match is None:
        raise ValueError(f"vision_aspect_ratio must be 'anyres_max_N', got {aspect!r}")
    if select not in ("full", "default"):
        raise ValueError(
            "vision_feature_select_strategy must be 'full' or 'default', "
            f"got {select!r}"
        )
    sizes = {**_SIZES, **tower}
    layers = config.get("vision_feature_layer", -1)
    pinpoints = config.get("image_grid_pinpoints") or PINPOINTS
    tied = config.get("tie_word_embeddings") or text.get("tie_word_embeddings", False)
    return Config(
        decoder=decoder_config_from_json(text, qkv_bias=True, tied=bool(tied)),
        vision=SiglipConfig(
            width=sizes["hidden_size"],
            layers=sizes["num_hidden_layers"],
            heads=sizes["num_attention_heads"],
            hidden=sizes["intermediate_size"],
            image_size=sizes["image_size"],
            patch_size=sizes["patch_size"],
            channels=tower.get("num_channels") or 3,
            norm_eps=tower.get("layer_norm_eps") or 1e-6,
        ),
        pinpoints=tuple((height, width) for height, width in pinpoints),
        image_token=_token(config, "image_token", 151646),
        video_token=_token(config, "video_token", 151647),
        feature_layers=(layers,) if isinstance(layers, int) else tuple(layers),
        drop_first=select == "default",
        max_tiles=int(match[1]),
        projector_bias=bool(config.get("multimodal_projector_bias", True)),
    )


def _token(config: Mapping[str, Any], name: str, default: int) -> int:
    return config.get(f"{name}_index", config.get(f"{name}_id", default))
