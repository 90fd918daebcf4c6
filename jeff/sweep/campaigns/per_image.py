"""Which images every trial got right, a bit for each: for accuracies on new images."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jeff.sweep.checks import positive
from jeff.sweep.trial import Batch

__all__ = ["PerImage", "pack_right", "right_answers"]


class PerImage(NamedTuple):
    """Statistics of a trial, and which images it got right.

    One bit for each image: of 1,000 trials at 20 rates on 10,000 images 25 MB, on the
    host and in a sweep's folder.

    Attributes:
      total: What the campaign counts in any case, an `Outcome`.
      right: uint8 ``[ceil(images / 8)]``; bit ``i % 8`` of byte ``i // 8``, from the
        lowest, is image `i`; see `right_answers`.
    """

    total: Any
    right: jax.Array


def pack_right(right: jax.Array, batch: Batch, images: int) -> jax.Array:
    """The bits of a batch's images in those of all images, the others 0.

    As each image is in one batch, sums over batches are exact: no bit meets itself.

    Args:
      right: bool or integers 0 and 1, ``[batch]``.
      batch: The batch.
      images: Number of all images, static.

    Returns:
      uint8 ``[ceil(images / 8)]``.

    Examples:
      >>> some = Batch(None, jnp.array([1, 8, 9]), jnp.array([True, True, False]))
      >>> print(pack_right(jnp.array([True, True, True]), some, 9))
      [2 1]
    """
    counts = (batch.valid & right.astype(bool)).astype(jnp.uint8)
    bits = counts << (batch.index % 8).astype(jnp.uint8)
    packed = jnp.zeros(-(-images // 8), jnp.uint8)
    return packed.at[batch.index // 8].add(bits, mode="drop")


def right_answers(stats: PerImage, images: int) -> np.ndarray:
    """Which images each trial got right.

    Args:
      stats: Of a campaign with `per_image`, each array ``[..., trials, ...]``.
      images: Number of images.

    Returns:
      bool ``[..., trials, images]``.

    Raises:
      TypeError: If the statistics are of a campaign without `per_image`.
      ValueError: If they are of another number of images.

    Examples:
      >>> stats = PerImage(None, np.array([[3, 1], [0, 1]], np.uint8))
      >>> right = right_answers(stats, 9)
      >>> print(right.sum(-1), right.sum(-2))  # by trial, and by image
      [3 1] [1 1 0 0 0 0 0 0 2]
    """
    images = positive("images", images)
    if not isinstance(stats, PerImage):
        raise TypeError(
            f"statistics are {type(stats).__name__}, not PerImage: give the campaign "
            "per_image, the number of examples"
        )
    packed = np.asarray(stats.right)
    if packed.shape[-1] != -(-images // 8):
        raise ValueError(
            f"images={images}, but statistics are of about {8 * packed.shape[-1]}"
        )
    bits = np.unpackbits(packed, axis=-1, count=images, bitorder="little")
    return bits.astype(bool)
