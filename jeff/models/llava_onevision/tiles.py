"""Which feature stands at which image token: the picture grid of LLaVA-OneVision.

A picture alone in its sample is seen twice: whole, and cut into tiles at the resolution
of the pinpoint that fits it best. The tower's features of the tiles are put side by
side, the padding of the fit is cut off, and a learned vector ends every row. All of it
depends on the picture's size only, so it is computed here, on the host, as index arrays
into the table of features; too many features are scaled down bilinearly, which is an
index array with four weighted rows for every token.

References:
  Li et al., LLaVA-OneVision, arXiv 2408.03326, section 3.2 (higher AnyRes).
"""

import math
from collections.abc import Sequence

import numpy as np

from jeff.models.llava_onevision.config import Config

__all__ = ["best_pinpoint", "picture_rows", "tile_count"]

NEWLINE = 0
"""Row of the feature table that holds the newline; tile ``t``'s patch ``p`` is in row
``1 + t * patches + p``."""


def best_pinpoint(
    size: tuple[int, int], pinpoints: Sequence[tuple[int, int]]
) -> tuple[int, int]:
    """The size that keeps most of a picture's pixels, then wastes least.

    Args:
      size: Height and width of the picture.
      pinpoints: Heights and widths to choose from.

    Returns:
      One of them.

    Raises:
      ValueError: If the picture has no pixels.

    Examples:
      >>> best_pinpoint((40, 60), [(42, 42), (42, 84), (84, 84)])
      (42, 84)
    """
    height, width = size
    if min(size) < 1:
        raise ValueError(f"the picture has 0 pixels: {height} high, {width} wide")

    def kept(point: tuple[int, int]) -> int:
        scale = min(point[1] / width, point[0] / height)
        return min(int(width * scale) * int(height * scale), width * height)

    return max(pinpoints, key=lambda p: (kept(p), kept(p) - p[0] * p[1]))


def tile_count(sizes: Sequence[tuple[int, int]], *, config: Config) -> int:
    """Tiles of one sample, the whole pictures included.

    Args:
      sizes: Height and width of each of its pictures.
      config: The model.

    Returns:
      One for each of several pictures; one more than its grid for a single one.

    Examples:
      >>> from jeff.models.vision.siglip import SiglipConfig
      >>> from jeff.models.decoder.config import DecoderConfig
      >>> config = Config(
      ...     decoder=DecoderConfig(vocabulary=9, width=8, layers=1, heads=2,
      ...                           kv_heads=1, head_dim=4, hidden=8),
      ...     vision=SiglipConfig(width=8, layers=1, heads=2, hidden=8, image_size=4,
      ...                         patch_size=2),
      ...     pinpoints=((4, 4), (8, 8)), image_token=7, video_token=8)
      >>> tile_count([(8, 6)], config=config), tile_count([(8, 6)] * 3, config=config)
      (5, 3)
    """
    if len(sizes) != 1:
        return len(sizes)
    rows, columns = _grid(sizes[0], config)
    return 1 + rows * columns


def picture_rows(
    sizes: Sequence[tuple[int, int]], *, config: Config
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Which rows of the feature table stand at a sample's image tokens.

    Args:
      sizes: Height and width of each of its pictures.
      config: The model.

    Returns:
      For each picture, int32 ``[tokens, 4]`` and float32 ``[tokens, 4]``: a feature is
      the sum of four rows times their weights, which add up to one. Row 0 is the
      newline, tile ``t``'s patch ``p`` row ``1 + t * patches + p``.

    Raises:
      ValueError: If a picture has no pixels, or the model drops patches that a picture
        alone in its sample needs.
    """
    if len(sizes) == 1:
        return [_tiled(sizes[0], config)]
    best = [best_pinpoint(size, config.pinpoints) for size in sizes]  # checks the sizes
    return [_whole(i, config) for i in range(len(best))]


def _grid(size: tuple[int, int], config: Config) -> tuple[int, int]:
    height, width = best_pinpoint(size, config.pinpoints)
    tile = config.vision.image_size
    return height // tile, width // tile


def _whole(tile: int, config: Config) -> tuple[np.ndarray, np.ndarray]:
    """One of several pictures: its features and a newline."""
    patches = config.vision.patches
    rows = np.arange(int(config.drop_first), patches) + 1 + tile * patches
    return _plain(np.append(rows, NEWLINE))


def _tiled(size: tuple[int, int], config: Config) -> tuple[np.ndarray, np.ndarray]:
    """The only picture: the whole of it, then its tiles row by row."""
    if config.drop_first:
        raise ValueError(
            "vision_feature_select_strategy 'default' drops a patch of every tile, "
            "which leaves no square to put side by side; a sample needs several "
            "pictures, or the strategy 'full'"
        )
    side, patches = config.vision.side, config.vision.patches
    rows, columns = _grid(size, config)
    y, x = np.indices((rows * side, columns * side))
    tile = 1 + y // side * columns + x // side
    table = 1 + tile * patches + y % side * side + x % side
    table = _unpadded(table, size)
    height, width = table.shape
    ratio = math.sqrt(height * width / (config.max_tiles * patches))
    if ratio > 1.1:
        index, weight = _scaled(table, int(height // ratio), int(width // ratio))
    else:
        index, weight = _plain(table)
    index, weight = (
        np.concatenate([a, np.broadcast_to(b, (len(a), 1, 4))], axis=1).reshape(-1, 4)
        for a, b in zip((index, weight), _plain(np.array(NEWLINE)), strict=True)
    )
    base, ones = _plain(1 + np.arange(patches))
    return np.concatenate([base, index]), np.concatenate([ones, weight])


def _unpadded(table: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Without the rows or columns that only padding was fitted into."""
    (height, width), (rows, columns) = size, table.shape
    if width / height > columns / rows:
        cut = (rows - int(round(height * (columns / width), 7))) // 2
        return table[cut : rows - cut]
    cut = (columns - int(round(width * (rows / height), 7))) // 2
    return table[:, cut : columns - cut]


def _plain(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Single rows: weight one on the first of four."""
    index = np.repeat(rows.astype(np.int32)[..., None], 4, axis=-1)
    weight = np.zeros(index.shape, np.float32)
    weight[..., 0] = 1.0
    return index, weight


def _scaled(
    table: np.ndarray, rows: int, columns: int
) -> tuple[np.ndarray, np.ndarray]:
    """Bilinear interpolation with pixel centres at halves, without antialiasing."""
    (top, bottom, y), (left, right, x) = (
        _between(before, after)
        for before, after in zip(table.shape, (rows, columns), strict=True)
    )
    index = [table[np.ix_(a, b)] for a in (top, bottom) for b in (left, right)]
    weight = [np.outer(a, b) for a in (1 - y, y) for b in (1 - x, x)]
    return np.stack(index, -1).astype(np.int32), np.stack(weight, -1)


def _between(before: int, after: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each new coordinate the old neighbours, and the share of the second."""
    scale = np.float32(before) / np.float32(after)
    at = (np.arange(after, dtype=np.float32) + np.float32(0.5)) * scale
    at = np.maximum(at - np.float32(0.5), np.float32(0.0))
    low = np.minimum(at.astype(np.int32), before - 1)
    return low, np.minimum(low + 1, before - 1), at - low.astype(np.float32)
