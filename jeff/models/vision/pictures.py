"""Pictures before a vision tower: to RGB, resized with Pillow, normalised.

The arithmetic and its order are those of the Pillow image processors of `transformers`,
so that pixel values come out equal to the bit.
"""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jeff.io.checkpoint import read_json
from jeff.models.json_fields import check_fields

__all__ = [
    "CLIP_MEAN",
    "CLIP_STD",
    "check_colours",
    "normalise",
    "pad_to",
    "pad_to_square",
    "read_picture",
    "read_preprocessor_json",
    "resize",
    "to_rgb",
]

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
"""Mean of red, green and blue in [0, 1] that CLIP's processor and its heirs have."""

CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""Their standard deviations."""

RESAMPLE = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""Filters by the numbers that configuration files give them."""


def read_picture(path: str | os.PathLike[str]) -> Any:
    """A picture from a file, turned as its camera says.

    Args:
      path: PNG, JPEG or whatever Pillow reads.

    Returns:
      A `PIL.Image.Image` in RGB.

    Raises:
      ValueError: If the file is no picture, broken or absent, or as `to_rgb`; it is
        named.

    Examples:
      >>> read_picture("README.md")
      Traceback (most recent call last):
        ...
      ValueError: cannot read a picture from 'README.md': no format Pillow knows
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return to_rgb(ImageOps.exif_transpose(image))
    except UnidentifiedImageError:
        why = "no format Pillow knows"
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        why = getattr(error, "strerror", None) or str(error)
    raise ValueError(f"cannot read a picture from {os.fspath(path)!r}: {why}")


def to_rgb(picture: Any) -> Any:
    """Any picture as RGB with 8 bits a channel.

    Args:
      picture: `PIL.Image.Image`, or uint8 ``[height, width]``, ``[height, width, 3]``
        or ``[height, width, 4]``. Grays of 16 bits are scaled to 8. What is
        transparent is laid on white.

    Returns:
      A `PIL.Image.Image` in RGB.

    Raises:
      TypeError: If it is neither.
      ValueError: If it has no pixels, or its pixels are of 32 bits (modes I and F),
        which have no agreed white.

    Examples:
      >>> to_rgb(np.full((2, 3), 7, np.uint8)).getpixel((2, 1))
      (7, 7, 7)
      >>> to_rgb(np.zeros((0, 3, 3), np.uint8))
      Traceback (most recent call last):
        ...
      ValueError: the picture has 0 pixels: 0 high, 3 wide
    """
    from PIL import Image

    if isinstance(picture, Image.Image):
        width, height = picture.size
    else:
        shape, dtype = getattr(picture, "shape", None), getattr(picture, "dtype", None)
        if shape is None or dtype != np.uint8 or not _is_picture(shape):
            given = type(picture).__name__ if shape is None else f"{dtype}{shape}"
            raise TypeError(
                "a picture must be a PIL image or uint8 [height, width, 3], "
                f"got {given}"
            )
        height, width = shape[:2]
    if not height or not width:
        raise ValueError(f"the picture has 0 pixels: {height} high, {width} wide")
    if not isinstance(picture, Image.Image):
        picture = Image.fromarray(np.asarray(picture))
    if picture.mode in ("I", "F"):
        raise ValueError(
            f"the picture has mode {picture.mode}, pixels of 32 bits; scale it to 8"
        )
    if picture.mode.startswith("I;16"):
        picture = _eight_bits(picture)
    if "A" in picture.getbands() or picture.info.get("transparency") is not None:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def resize(picture: Any, height: int, width: int, *, resample: int = 3) -> Any:
    """A picture of another size.

    Args:
      picture: `PIL.Image.Image` in RGB.
      height: Rows.
      width: Columns.
      resample: The filter by its number in configuration files; 3 is bicubic.

    Returns:
      A `PIL.Image.Image`; the same one if it has that size.

    Raises:
      ValueError: If the filter is unknown.

    Examples:
      >>> resize(to_rgb(np.zeros((4, 6), np.uint8)), 2, 3).size  # width, height
      (3, 2)
    """
    from PIL import Image

    if resample not in range(len(RESAMPLE)):
        raise ValueError(f"resample must be 0 to {len(RESAMPLE) - 1}, got {resample!r}")
    if picture.size == (width, height):
        return picture
    return picture.resize((width, height), resample=Image.Resampling(resample))


def pad_to_square(picture: Any, color: tuple[int, int, int]) -> Any:
    """The picture in the middle of a square as wide as its longer side.

    Args:
      picture: `PIL.Image.Image` in RGB.
      color: What stands around it.

    Returns:
      A `PIL.Image.Image`; the same one if it is a square.

    Examples:
      >>> pad_to_square(to_rgb(np.zeros((2, 3), np.uint8)), (9, 9, 9)).getpixel((0, 2))
      (9, 9, 9)
    """
    width, height = picture.size
    side = max(width, height)
    at = ((side - width) // 2, (side - height) // 2)
    return picture if width == height else _on_canvas(picture, side, side, at, color)


def pad_to(picture: Any, height: int, width: int) -> Any:
    """The picture in the middle of a larger black one.

    Args:
      picture: `PIL.Image.Image` in RGB, not larger.
      height: Rows.
      width: Columns.

    Returns:
      A `PIL.Image.Image`.
    """
    at = ((width - picture.width) // 2, (height - picture.height) // 2)
    return _on_canvas(picture, height, width, at, (0, 0, 0))


def check_colours(
    mean: Sequence[float], std: Sequence[float]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Means and standard deviations of the three colours, as floats.

    Args:
      mean: Of red, green and blue.
      std: Likewise.

    Returns:
      Both.

    Raises:
      ValueError: If there are not three numbers each, or a deviation is not positive.

    Examples:
      >>> check_colours([0, 0, 0], [1, 1, 1])
      ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    """
    checked = []
    for name, given in (("mean", mean), ("std", std)):
        check_fields({name: given}, {name: "a list of numbers"})
        if len(given) != 3:
            raise ValueError(f"{name} must have 3 numbers: {tuple(given)}")
        checked.append(tuple(map(float, given)))
    if not min(checked[1]) > 0:
        raise ValueError(f"std must be positive, got {checked[1]}")
    return checked[0], checked[1]


def read_preprocessor_json(folder: str | os.PathLike[str]) -> Mapping[str, Any]:
    """How a checkpoint wants its pictures.

    Args:
      folder: Holds ``preprocessor_config.json`` or, as of today's `transformers`,
        ``processor_config.json``; the first that is there and not empty is read.

    Returns:
      Its content; empty if there is neither.

    Raises:
      ValueError: If the file is broken.

    Examples:
      >>> read_preprocessor_json("docs")
      {}
    """
    for name in ("preprocessor_config.json", "processor_config.json"):
        file = pathlib.Path(folder) / name
        if file.exists() and (settings := read_json(file)):
            return settings
    return {}


def normalise(
    picture: Any,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    rescale: float = 1 / 255,
) -> np.ndarray:
    """Pixels as a tower wants them: ``(pixel * rescale - mean) / std``.

    Args:
      picture: `PIL.Image.Image` in RGB.
      mean: Per channel.
      std: Per channel.
      rescale: Factor of the 8-bit values.

    Returns:
      float32 ``[3, height, width]``.

    Examples:
      >>> gray = to_rgb(np.full((1, 2), 255, np.uint8))
      >>> print(normalise(gray, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.25))[:, 0, 0])
      [1. 1. 2.]
    """
    pixels = (np.asarray(picture).astype(np.float64) * rescale).astype(np.float32)
    pixels = (pixels - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _eight_bits(picture: Any) -> Any:
    """A picture of 16-bit grays with 8 bits; its transparent gray becomes white."""
    from PIL import Image

    wide = np.asarray(picture).astype(np.uint32)
    gray = ((wide + 128) // 257).astype(np.uint8)  # 65535 = 255 * 257
    clear = picture.info.get("transparency")
    if clear is not None:
        gray[wide == clear] = 255
    return Image.fromarray(gray)


def _is_picture(shape: tuple[int, ...]) -> bool:
    return len(shape) == 2 or (len(shape) == 3 and shape[2] in (3, 4))


def _on_canvas(picture, height, width, at, color):
    from PIL import Image

    canvas = Image.new("RGB", (width, height), color)
    canvas.paste(picture, at)
    return canvas
