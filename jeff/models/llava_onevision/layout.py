"""Inputs of LLaVA-OneVision from tokens and tiles: checked, of static shapes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jeff.models.chat.tokens import check_tokens
from jeff.models.llava_onevision.config import Config
from jeff.models.llava_onevision.tiles import picture_rows, tile_count

__all__ = ["layout", "model_inputs", "with_tiles"]

Sizes = Sequence[Sequence[tuple[int, int]]]


def layout(
    tokens: Any,
    valid: Any,
    sizes: Sizes,
    *,
    config: Config,
    tiles: int | None = None,
) -> dict[str, Any]:
    """Tokens, positions and what stands at image tokens.

    Args:
      tokens: int ``[B, N]``, with as many image tokens as the pictures have features.
      valid: bool ``[B, N]``, false at padding.
      sizes: For each sample the (height, width) of its pictures, in their order.
      config: The model.
      tiles: Tiles of every sample; those of the sample with most if ``None``.

    Returns:
      ``tokens`` and ``positions`` int32 ``[B, N]``, ``valid`` bool ``[B, N]``; where
      there are pictures also ``feature_index`` int32 and ``feature_weight`` float32
      ``[B, N, 4]``: rows of a sample's feature table (see
      `jeff.models.llava_onevision.tiles`), -1 for text, and the number of ``tiles``.

    Raises:
      TypeError: If `tokens` are no integers.
      ValueError: If shapes differ, a prompt is empty, a token is unknown or a video,
        a sample has more or fewer image tokens than its pictures have features, or
        more tiles than `tiles`.
    """
    tokens, valid = check_tokens(tokens, valid, config)
    if len(sizes) != len(tokens):
        raise ValueError(
            f"sizes must have an entry for each of {len(tokens)} samples, "
            f"got {len(sizes)}"
        )
    index = np.full((*tokens.shape, 4), -1, np.int32)
    weight = np.zeros((*tokens.shape, 4), np.float32)
    for i, row in enumerate(sizes):
        at = np.flatnonzero(valid[i] & (tokens[i] == config.image_token))
        found = picture_rows(row, config=config) if len(row) else []
        needed = sum(len(rows) for rows, _ in found)
        if needed != len(at):
            raise ValueError(
                f"sample {i} has {len(at)} image tokens, its {len(row)} pictures have "
                f"{needed} features"
            )
        if found:
            index[i, at] = np.concatenate([rows for rows, _ in found])
            weight[i, at] = np.concatenate([weights for _, weights in found])
    arrays = {
        "tokens": tokens.astype(np.int32),
        "valid": valid,
        "positions": np.maximum(np.cumsum(valid, axis=1) - 1, 0).astype(np.int32),
    }
    most = max(tile_count(row, config=config) for row in sizes)
    if tiles is not None and tiles < most:
        raise ValueError(f"tiles must be at least {most}, got {tiles}")
    if most or tiles:
        arrays |= {"feature_index": index, "feature_weight": weight}
        arrays |= {"tiles": most if tiles is None else tiles}
    return arrays


def with_tiles(
    arrays: Mapping[str, Any], pixels: Sequence[Any], sizes: Sizes, *, config: Config
) -> dict[str, Any]:
    """The arrays of `layout` with the pictures themselves.

    Args:
      arrays: From `layout`.
      pixels: For each sample its tiles; more than it has are not read.
      sizes: As for `layout`.
      config: The model.

    Returns:
      The same, with ``pixel_values`` instead of ``tiles``.

    Raises:
      ValueError: If a sample has too few tiles or of another shape.
    """
    arrays = dict(arrays)
    slots = arrays.pop("tiles", 0)
    if not slots:
        return arrays
    if len(pixels) != len(sizes):
        raise ValueError(
            f"pixels must have an entry for each of {len(sizes)} samples, "
            f"got {len(pixels)}"
        )
    tower = config.vision
    tile = (tower.channels, tower.image_size, tower.image_size)
    padded = np.zeros((len(sizes), slots, *tile), np.float32)
    for i, row in enumerate(sizes):
        if count := tile_count(row, config=config):
            given = np.asarray(pixels[i], np.float32)
            if given.shape[1:] != tile or len(given) < count:
                raise ValueError(
                    f"pixels[{i}] must be {count} tiles of shape {tile}, "
                    f"got shape {given.shape}"
                )
            padded[i, :count] = given[:count]
    return arrays | {"pixel_values": padded}


def model_inputs(
    tokens: Any,
    valid: Any,
    pixels: Sequence[Any],
    sizes: Sizes,
    *,
    config: Config,
    tiles: int | None = None,
) -> dict[str, Any]:
    """What `jeff.models.llava_onevision.apply` takes, from what a processor gives.

    Args:
      tokens: int ``[B, N]`` (``input_ids``).
      valid: bool ``[B, N]`` (``attention_mask``).
      pixels: For each sample its tiles, float ``[at least its tiles, channels,
        image_size, image_size]``; more are not read, so that padded ``pixel_values``
        fit.
      sizes: For each sample the (height, width) of its pictures before they were
        resized (``image_sizes``).
      config: The model.
      tiles: Pad every sample to this many tiles, so that batches have equal shapes.

    Returns:
      ``tokens``, ``valid`` and ``positions``; where there are pictures also
      ``pixel_values`` float32 ``[B, tiles, channels, image_size, image_size]``,
      ``feature_index`` and ``feature_weight``.

    Raises:
      TypeError: As `layout`.
      ValueError: As `layout` and `with_tiles`.
    """
    arrays = layout(tokens, valid, sizes, config=config, tiles=tiles)
    return with_tiles(arrays, pixels, sizes, config=config)
