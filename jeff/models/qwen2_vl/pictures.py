"""Pictures of Qwen2-VL as patches: resized to whole squares, normalised, cut up.

A picture keeps its shape, up to rounding: it is resized so that both sides are whole
squares of merged patches and its area lies within bounds.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jeff.models.vision.pictures import (
    CLIP_MEAN,
    CLIP_STD,
    check_colours,
    normalise,
    resize,
    to_rgb,
)

__all__ = [
    "PictureConfig",
    "picture_config_from_json",
    "picture_grid",
    "picture_patches",
    "smart_resize",
]

MAX_ASPECT = 200
"""A picture may be at most this many times as long as it is wide."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PictureConfig:
    """How pictures become patches.

    Attributes:
      min_pixels: Smaller pictures are enlarged to this area.
      max_pixels: Larger pictures are shrunk to this area.
      patch: Side of a patch in pixels.
      frames: Frames a patch spans; a picture is repeated that often.
      merge: Side in patches of the square that becomes one token.
      mean: Of the colours in [0, 1].
      std: Of the colours in [0, 1].

    Raises:
      ValueError: If a size is not positive, the bounds exclude each other or a single
        square, or there are not three means and three positive standard deviations.

    Examples:
      >>> PictureConfig().factor  # sides are multiples of it
      28
    """

    min_pixels: int = 56 * 56
    max_pixels: int = 28 * 28 * 1280
    patch: int = 14
    frames: int = 2
    merge: int = 2
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD

    def __post_init__(self) -> None:
        """Checks the fields."""
        for name in ("min_pixels", "max_pixels", "patch", "frames", "merge"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} must be a positive int, got {value!r}")
        if self.max_pixels < max(self.min_pixels, self.factor**2):
            raise ValueError(
                f"max_pixels must be at least min_pixels {self.min_pixels} and a "
                f"square of {self.factor} x {self.factor}, got {self.max_pixels}"
            )
        mean, std = check_colours(self.mean, self.std)
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "std", std)

    @property
    def factor(self) -> int:
        """Side in pixels of the square that becomes one token."""
        return self.patch * self.merge


def picture_config_from_json(config: Mapping[str, Any]) -> PictureConfig:
    """The settings in a checkpoint's ``preprocessor_config.json``.

    Args:
      config: Its content, or that of ``processor_config.json``, which has it under
        ``image_processor``; bounds as ``min_pixels`` and ``max_pixels``, or under
        ``size`` by these names or as ``shortest_edge`` and ``longest_edge`` (which are
        areas all the same). The first form wins.

    Returns:
      The settings; what is absent has the default of `transformers`.

    Raises:
      ValueError: If a step is switched off or another than the published one.

    Examples:
      >>> hub = {"min_pixels": 3136, "max_pixels": 12845056, "merge_size": 2}
      >>> picture_config_from_json(hub).max_pixels
      12845056
      >>> new = {"size": {"shortest_edge": 784, "longest_edge": 7840}}
      >>> picture_config_from_json(new).max_pixels
      7840
    """
    config = {**config, **(config.get("image_processor") or {})}
    for name in ("do_resize", "do_rescale", "do_normalize", "do_convert_rgb"):
        if config.get(name) is False:
            raise ValueError(f"{name} must not be switched off, got False")
    if config.get("resample", 3) != 3:
        raise ValueError(f"resample must be 3 (bicubic), got {config['resample']}")
    scale = config.get("rescale_factor", 1 / 255)
    if not math.isclose(scale, 1 / 255, rel_tol=1e-6):
        raise ValueError(f"rescale_factor must be 1 / 255, got {scale}")
    fields: dict[str, Any] = {}
    size = config.get("size") or {}
    for name, edge in (("min_pixels", "shortest_edge"), ("max_pixels", "longest_edge")):
        for value in (config.get(name), size.get(name), size.get(edge)):
            if value is not None:
                fields[name] = value
                break
    names = {
        "patch": "patch_size",
        "frames": "temporal_patch_size",
        "merge": "merge_size",
        "mean": "image_mean",
        "std": "image_std",
    }
    fields |= {ours: config[name] for ours, name in names.items() if name in config}
    return PictureConfig(**fields)


def smart_resize(height: int, width: int, config: PictureConfig) -> tuple[int, int]:
    """The size a picture is resized to.

    Both sides are rounded to multiples of `PictureConfig.factor`; if the area is then
    out of bounds, both are scaled by the same factor and rounded towards the inside.

    Args:
      height: Rows of pixels.
      width: Columns of pixels.
      config: Settings.

    Returns:
      Rows and columns, positive multiples of the factor.

    Raises:
      ValueError: If there are no pixels, or one side is more than 200 times the other.

    Examples:
      >>> smart_resize(480, 640, PictureConfig())
      (476, 644)
      >>> smart_resize(1, 5000, PictureConfig())
      Traceback (most recent call last):
        ...
      ValueError: a picture of 1 x 5000 pixels is too narrow: at most 200 to 1
    """
    if height < 1 or width < 1:
        raise ValueError(f"a picture of {height} x {width} pixels is empty")
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise ValueError(
            f"a picture of {height} x {width} pixels is too narrow: "
            f"at most {MAX_ASPECT} to 1"
        )
    sides, factor = (height, width), config.factor
    rows, columns = (round(side / factor) * factor for side in sides)
    if rows * columns > config.max_pixels:
        ratio = math.sqrt(height * width / config.max_pixels)
        rows, columns = (
            max(factor, math.floor(side / ratio / factor) * factor) for side in sides
        )
    elif rows * columns < config.min_pixels:
        ratio = math.sqrt(config.min_pixels / (height * width))
        rows, columns = (math.ceil(side * ratio / factor) * factor for side in sides)
    return rows, columns


def picture_grid(picture: Any, config: PictureConfig) -> tuple[int, int, int]:
    """Frames, rows and columns of patches a picture will have.

    Args:
      picture: A `PIL.Image.Image`.
      config: Settings.

    Returns:
      ``(1, rows, columns)``; the picture has ``rows * columns / merge**2`` tokens.

    Raises:
      ValueError: As `smart_resize`.

    Examples:
      >>> picture_grid(to_rgb(np.zeros((480, 640), np.uint8)), PictureConfig())
      (1, 34, 46)
    """
    width, height = picture.size
    rows, columns = smart_resize(height, width, config)
    return 1, rows // config.patch, columns // config.patch


def picture_patches(
    pictures: Sequence[Any], config: PictureConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Patches of pictures, one picture after the other.

    Args:
      pictures: What `jeff.models.vision.pictures.to_rgb` takes.
      config: Settings.

    Returns:
      float32 ``[P, 3 * frames * patch * patch]``, in the order of `patch_layout`, and
      int32 ``[I, 3]``, the grids.

    Raises:
      TypeError: If something is no picture.
      ValueError: As `smart_resize` and `to_rgb`; the picture is named. All are checked
        before any is resized.

    Examples:
      >>> gray = np.zeros((50, 60), np.uint8)
      >>> pixels, grids = picture_patches([gray], PictureConfig())
      >>> print(pixels.shape, grids)
      (16, 1176) [[1 4 4]]
    """
    ready, grids = [], []
    for i, picture in enumerate(pictures):
        try:
            ready.append(to_rgb(picture))
            grids.append(picture_grid(ready[-1], config))
        except (TypeError, ValueError) as error:
            raise type(error)(f"pictures[{i}]: {error}") from None
    count = sum(rows * columns for _, rows, columns in grids)
    pixels = np.empty((count, 3 * config.frames * config.patch**2), np.float32)
    start = 0
    for picture, (_, rows, columns) in zip(ready, grids, strict=True):
        stop = start + rows * columns
        pixels[start:stop] = _patches(picture, rows, columns, config)
        start = stop
    return pixels, np.array(grids, np.int32).reshape(-1, 3)


def _patches(picture, rows: int, columns: int, config: PictureConfig) -> np.ndarray:
    patch, merge = config.patch, config.merge
    resized = resize(picture, rows * patch, columns * patch)
    x = normalise(resized, mean=config.mean, std=config.std)  # [3, height, width]
    x = x.reshape(3, rows // merge, merge, patch, columns // merge, merge, patch)
    x = x.transpose(1, 4, 2, 5, 0, 3, 6)  # squares, patches in one, colour, pixels
    x = x.reshape(rows * columns, 3, 1, patch**2)
    return x.repeat(config.frames, axis=2).reshape(rows * columns, -1)
