"""Pictures of LLaVA-OneVision as tiles: resized, fitted, cut up, normalised."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jeff.models.llava_onevision.config import Config
from jeff.models.llava_onevision.tiles import best_pinpoint
from jeff.models.vision.pictures import (
    CLIP_MEAN,
    CLIP_STD,
    check_colours,
    normalise,
    pad_to,
    pad_to_square,
    resize,
    to_rgb,
)

__all__ = ["PictureConfig", "picture_config_from_json", "picture_tiles"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PictureConfig:
    """How pixels are made of a picture; the defaults are those of the published models.

    Sizes are the model's: see `Config.pinpoints` and `SiglipConfig.image_size`.

    Attributes:
      mean: Of the colours in [0, 1].
      std: Of the colours in [0, 1].
      rescale: Factor of 8-bit values.
      resample: Filter of all resizing, by its number in configuration files; 3 is
        bicubic.

    Raises:
      ValueError: If there are not three means and three positive standard deviations.

    Examples:
      >>> PictureConfig(std=(0.5, 0.5, 0.0))
      Traceback (most recent call last):
        ...
      ValueError: std must be positive, got (0.5, 0.5, 0.0)
    """

    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD
    rescale: float = 1 / 255
    resample: int = 3

    def __post_init__(self) -> None:
        """Checks the colours."""
        mean, std = check_colours(self.mean, self.std)
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "std", std)


def picture_config_from_json(
    settings: Mapping[str, Any], *, config: Config
) -> PictureConfig:
    """The settings in a checkpoint's ``preprocessor_config.json``.

    Args:
      settings: Its content, or that of ``processor_config.json``, which has the former
        under ``image_processor``.
      config: The model.

    Returns:
      The settings; what is absent has its default.

    Raises:
      ValueError: If tiles are not of the tower's size, pictures are fitted into other
        sizes than the model's pinpoints, or a step is switched off or added (all such
        fields are named).

    Examples:
      >>> from jeff.models import llava_onevision
      >>> config = llava_onevision.config_from_json({
      ...     "model_type": "llava_onevision",
      ...     "text_config": {"vocab_size": 152000, "hidden_size": 64,
      ...         "intermediate_size": 128, "num_hidden_layers": 2,
      ...         "num_attention_heads": 4}})
      >>> picture_config_from_json({"image_mean": [0.5, 0.5, 0.5]}, config=config).mean
      (0.5, 0.5, 0.5)
      >>> small = {"size": {"height": 336, "width": 336}, "do_resize": True}
      >>> picture_config_from_json(small, config=config)
      Traceback (most recent call last):
        ...
      ValueError: preprocessing does not fit the model: size = 336x336
    """
    given = {**settings, **(settings.get("image_processor") or {})}
    side = config.vision.image_size
    steps = {"do_center_crop": False}
    steps |= dict.fromkeys(("do_resize", "do_rescale", "do_normalize"), True)
    steps |= {"do_convert_rgb": True}
    wrong = [
        f"{name} = {given[name]!r}"
        for name, expected in steps.items()
        if given.get(name) not in (None, expected)
    ]
    size = given.get("size") or {}
    edges = [size.get(name, size.get("shortest_edge")) for name in ("height", "width")]
    if size and edges != [side, side]:
        wrong.append(f"size = {edges[0]}x{edges[1]}")
    points = given.get("image_grid_pinpoints")
    if points and tuple(map(tuple, points)) != config.pinpoints:
        wrong.append(f"image_grid_pinpoints = {points}")
    if wrong:
        raise ValueError(f"preprocessing does not fit the model: {', '.join(wrong)}")
    names = {
        "mean": "image_mean",
        "std": "image_std",
        "rescale": "rescale_factor",
        "resample": "resample",
    }
    found = {ours: given.get(name) for ours, name in names.items()}
    return PictureConfig(**{k: v for k, v in found.items() if v is not None})


def picture_tiles(
    pictures: Sequence[Any], settings: PictureConfig, *, config: Config
) -> np.ndarray:
    """The tiles of one sample.

    A picture alone is resized whole to one tile, and fitted, with black around it, into
    the best pinpoint, which is cut into tiles. Several pictures are one tile each, made
    square with the mean colour.

    Args:
      pictures: All pictures of the sample, see `jeff.models.vision.pictures.to_rgb`.
      settings: Colours and filter.
      config: The model.

    Returns:
      float32 ``[tiles, 3, image_size, image_size]``, as many as
      `jeff.models.llava_onevision.tiles.tile_count`.

    Raises:
      TypeError: If a picture is none.
      ValueError: If a picture has no pixels.
    """
    side = config.vision.image_size
    images = [to_rgb(picture) for picture in pictures]
    if len(images) == 1:
        cut = [images[0], *_cut(images[0], settings, config)]
    else:
        red, green, blue = (int(255 * mean) for mean in settings.mean)
        cut = [pad_to_square(image, (red, green, blue)) for image in images]
    tiles = np.zeros((len(cut), 3, side, side), np.float32)
    for i, tile in enumerate(cut):
        tile = resize(tile, side, side, resample=settings.resample)
        tiles[i] = normalise(
            tile, mean=settings.mean, std=settings.std, rescale=settings.rescale
        )
    return tiles


def _cut(image: Any, settings: PictureConfig, config: Config) -> list[Any]:
    """The tiles of a picture in its pinpoint, row by row."""
    side = config.vision.image_size
    point = best_pinpoint((image.height, image.width), config.pinpoints)
    fitted = _fitted((image.height, image.width), point)
    canvas = pad_to(resize(image, *fitted, resample=settings.resample), *point)
    return [
        canvas.crop((left, top, left + side, top + side))
        for top in range(0, point[0], side)
        for left in range(0, point[1], side)
    ]


def _fitted(size: tuple[int, int], point: tuple[int, int]) -> tuple[int, int]:
    """The largest height and width of the picture's shape within a pinpoint."""
    (height, width), (rows, columns) = size, point
    if columns / width < rows / height:
        return min(math.ceil(height * (columns / width)), rows), columns
    return rows, min(math.ceil(width * (rows / height)), columns)
