"""Where the tokens of Qwen2-VL stand: index arrays made on the host.

Everything that depends on the sizes of pictures is worked out here with NumPy, so that
the model itself only sees arrays of static shapes.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jeff.models.chat.tokens import check_tokens
from jeff.models.qwen2_vl.config import Config
from jeff.models.qwen2_vl.grids import check_grids, patch_layout

__all__ = [
    "layout",
    "model_inputs",
    "rope_positions",
    "with_patches",
]


def rope_positions(
    tokens: Any, valid: Any, grids: Any, *, config: Config
) -> np.ndarray:
    """M-RoPE positions: temporal, vertical and horizontal.

    Text counts on in all three. A picture at position ``p`` keeps ``p`` as its time and
    adds the row and the column of each merged feature; what follows starts at ``p``
    plus the longer side in features, which is one more than the largest position so
    far. Generation goes on the same way: the next position is the largest plus one.

    Args:
      tokens: int ``[B, N]``.
      valid: bool ``[B, N]``; padding may stand on either side and gets position 0.
      grids: Grids of the pictures, in the order of the tokens, as in `check_grids`.
      config: The model.

    Returns:
      int32 ``[3, B, N]``.

    Raises:
      TypeError: If `tokens` are not integers.
      ValueError: If shapes do not fit, a row has no token, there is a token of a video
        or out of the vocabulary, the image tokens are not those of the pictures, or as
        `check_grids`.

    Examples:
      >>> from jeff.models.qwen2_vl.config import DecoderConfig, VisionConfig
      >>> text = DecoderConfig(vocabulary=9, width=8, layers=1, heads=1, kv_heads=1,
      ...                      head_dim=8, hidden=8, rope_sections=(2, 1, 1))
      >>> tower = VisionConfig(width=8, layers=1, heads=1, hidden=8, out=8)
      >>> config = Config(decoder=text, vision=tower, image_token=7, video_token=8)
      >>> tokens = np.array([[1, 7, 7, 7, 7, 7, 7, 2, 3]])
      >>> print(rope_positions(tokens, tokens > 0, [[1, 4, 6]], config=config)[:, 0])
      [[0 1 1 1 1 1 1 4 5]
       [0 1 1 1 2 2 2 4 5]
       [0 1 2 3 1 2 3 4 5]]

    References:
      Wang et al., Qwen2-VL, arXiv 2409.12191, section 2.1, figure 3.
    """
    tokens, valid = check_tokens(tokens, valid, config)
    merge = config.vision.merge
    grids = check_grids(grids, merge=merge)
    _check_counts(tokens, valid, grids, config)
    positions = np.zeros((3, *tokens.shape), np.int32)
    pictures = iter(grids.tolist())
    for row, (row_tokens, row_valid) in enumerate(zip(tokens, valid, strict=True)):
        slots = np.flatnonzero(row_valid)
        is_image = row_tokens[slots] == config.image_token
        at = following = 0
        while at < len(slots):
            if is_image[at]:
                _, rows, columns = next(pictures)
                rows, columns = rows // merge, columns // merge
                step = np.indices((1, rows, columns)).reshape(3, -1)
                advance = max(rows, columns)
            else:
                more = np.flatnonzero(is_image[at:])
                advance = int(more[0]) if len(more) else len(slots) - at
                step = np.broadcast_to(np.arange(advance), (3, advance))
            stop = at + step.shape[1]
            if not (is_image[at:stop] == is_image[at]).all() or stop > len(slots):
                raise ValueError(
                    f"tokens[{row}] has {int(is_image[at:stop].sum())} image tokens in "
                    f"a row where a picture needs {step.shape[1]}"
                )
            positions[:, row, slots[at:stop]] = following + step
            at, following = stop, following + advance
    return positions


def layout(
    tokens: Any,
    valid: Any,
    grids: Any,
    *,
    config: Config,
    patches: int | None = None,
) -> dict[str, np.ndarray]:
    """All index arrays of a batch.

    Args:
      tokens: int ``[B, N]``.
      valid: bool ``[B, N]``.
      grids: Grids of the pictures, in the order of the tokens, as in `check_grids`.
      config: The model.
      patches: Pad to this many patches, so that batches have equal shapes.

    Returns:
      ``tokens``, ``valid`` and ``positions`` (see `rope_positions`); where there are
      pictures also ``feature_index`` int32 ``[B, N]`` (row of the merged features that
      stands at a token, -1 for text), ``patch_position`` and ``patch_segment`` (see
      `patch_layout`).

    Raises:
      TypeError: As `rope_positions`.
      ValueError: As `rope_positions` and `patch_layout`.
    """
    merge = config.vision.merge
    tokens, valid = check_tokens(tokens, valid, config)
    grids = check_grids(grids, merge=merge)
    arrays = {
        "tokens": tokens.astype(np.int32),
        "valid": valid,
        "positions": rope_positions(tokens, valid, grids, config=config),
    }
    if not len(grids) and not patches:
        return arrays
    position, segment = patch_layout(grids, merge=merge, patches=patches)
    image = valid & (tokens == config.image_token)
    index = np.full(tokens.shape, -1, np.int32)
    index[image] = np.arange(image.sum(), dtype=np.int32)
    arrays |= {"feature_index": index}
    arrays |= {"patch_position": position, "patch_segment": segment}
    return arrays


def model_inputs(
    tokens: Any,
    valid: Any,
    pixels: Any,
    grids: Any,
    *,
    config: Config,
    patches: int | None = None,
) -> dict[str, np.ndarray]:
    """What `jeff.models.qwen2_vl.apply` takes, from what a processor gives.

    Args:
      tokens: int ``[B, N]`` (``input_ids``).
      valid: bool ``[B, N]`` (``attention_mask``).
      pixels: float ``[P, pixels of a patch]`` (``pixel_values``), pictures in the order
        of the tokens.
      grids: Integers ``[I, 3]`` (``image_grid_thw``).
      config: The model.
      patches: Pad to this many patches, so that batches have equal shapes.

    Returns:
      The arrays of `layout`, and ``patches`` float32 ``[P, pixels of a patch]``.

    Raises:
      TypeError: As `layout`.
      ValueError: As `layout` and `with_patches`.
    """
    arrays = layout(tokens, valid, grids, config=config, patches=patches)
    return with_patches(arrays, pixels, config=config)


def with_patches(
    arrays: Mapping[str, np.ndarray], pixels: Any, *, config: Config
) -> dict[str, np.ndarray]:
    """A layout together with the pixels it speaks of.

    Args:
      arrays: From `layout`.
      pixels: float ``[P, pixels of a patch]``, without padding.
      config: The model.

    Returns:
      The arrays and ``patches``, if there are any pictures.

    Raises:
      ValueError: If `pixels` are not as many as the layout's, or of another size.
    """
    pixels = np.asarray(pixels, np.float32)
    segment = arrays.get("patch_segment", np.zeros(0, np.int32))
    wanted = (int((segment >= 0).sum()), config.vision.pixels)
    if pixels.shape != wanted and (wanted[0] or pixels.size):
        raise ValueError(f"pixels must have shape {wanted}, got {pixels.shape}")
    if not len(segment):
        return dict(arrays)
    patches = np.zeros((len(segment), wanted[1]), np.float32)
    patches[: wanted[0]] = pixels.reshape(wanted)
    return {**arrays, "patches": patches}


def _check_counts(tokens, valid, grids, config) -> None:
    """As many image tokens as the pictures have features."""
    found = int((tokens[valid] == config.image_token).sum())
    needed = int(grids.prod(axis=1).sum()) // config.vision.merge**2
    if found != needed:
        raise ValueError(
            f"{len(grids)} pictures need {needed} image tokens, the prompt has {found}"
        )
