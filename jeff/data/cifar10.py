"""CIFAR-10 from a file of the user: 32x32 colour pictures of ten classes.

Nothing of it ships with jeff or is fetched. The file is an ``.npz`` with, for ``train``
and ``test``, either the pictures, ``{split}_images`` uint8 ``[n, 32, 32, 3]``, or their
JPEG files end to end, ``{split}_jpeg`` uint8 and ``{split}_offsets`` int64 ``[n + 1]``;
and ``{split}_labels``, integers from 0 to 9. Lossy copies are not CIFAR-10 proper:
never print an accuracy on one beside a published one.

References:
  A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

import io
import os
import pathlib
import zipfile
import zlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jeff.data.fetch import data_folder

__all__ = ["CLASSES", "FILES", "Cifar10", "find_cifar10", "load_cifar10"]

CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer",
    "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
"""Names of the labels 0 to 9."""

FILES = ("cifar10.npz", "cifar10_jpeg.npz")
"""What `find_cifar10` looks for in the data folder."""

_SIDE = 32
_SPLITS = ("train", "test")


class Cifar10(NamedTuple):
    """Pictures and what they show.

    Attributes:
      images: uint8 ``[n, 32, 32, 3]``, RGB.
      labels: int32 ``[n]``, places in `CLASSES`.
    """

    images: np.ndarray
    labels: np.ndarray


def find_cifar10() -> pathlib.Path | None:
    """The first of `FILES` in `jeff.data.fetch.data_folder`, or ``None``."""
    places = (data_folder() / name for name in FILES)
    return next((place for place in places if place.is_file()), None)


def load_cifar10(
    path: str | os.PathLike[str] | None = None,
    *,
    split: str = "test",
    count: int | None = None,
    seed: int = 0,
) -> Cifar10:
    """Reads pictures and labels.

    Args:
      path: The ``.npz`` file; `find_cifar10` if not given.
      split: ``"train"`` or ``"test"``.
      count: How many pictures, drawn without replacement, in random order; ``None``:
        all, in the order of the file, which may be sorted by class.
      seed: Of that draw: the same pictures for any file of the same order, and the
        first of them for any smaller `count`.

    Returns:
      The pictures.

    Raises:
      FileNotFoundError: If there is no such file.
      ValueError: If `split` or `count` is out of range, or the file is cut short, lacks
        an array, or holds a wrong one; the file is named.

    Examples:
      >>> import tempfile
      >>> file = pathlib.Path(tempfile.mkdtemp()) / "cifar10.npz"
      >>> images = np.zeros((3, 32, 32, 3), np.uint8)
      >>> np.savez(file, test_images=images, test_labels=np.array([3, 0, 9]))
      >>> [CLASSES[label] for label in load_cifar10(file).labels]
      ['cat', 'airplane', 'truck']
    """
    if split not in _SPLITS:
        raise ValueError(f"split must be one of {_SPLITS}, got {split!r}")
    file = find_cifar10() if path is None else pathlib.Path(path)
    if file is None or not file.is_file():
        raise FileNotFoundError(
            f"CIFAR-10 is not at {file or data_folder()}: put {' or '.join(FILES)} "
            "into the folder that JEFF_DATA names, or give its path"
        )
    try:
        arrays = _arrays(file, split)
        labels = _labels(arrays, split)
        total = len(labels)
        chosen = np.arange(total)
        if count is not None:
            if not 1 <= count <= total:
                raise ValueError(f"count must be in 1..{total}, got {count}")
            chosen = np.random.default_rng(seed).permutation(total)[:count]
        pictures = _pictures(arrays, split, total, chosen)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise ValueError(f"{file}: cut short or no .npz file: {error}") from error
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    return Cifar10(pictures, labels[chosen].astype(np.int32))


def _arrays(file: pathlib.Path, split: str) -> Mapping[str, np.ndarray]:
    """The arrays of a split; all that are missing are named."""
    plain, packed = [f"{split}_images"], [f"{split}_jpeg", f"{split}_offsets"]
    labels = f"{split}_labels"
    # Opened here: of a bad archive np.load would leave the file open.
    with file.open("rb") as stream:
        archive = np.load(stream, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise ValueError("holds one array, not the named ones of an .npz file")
        needed = [*(plain if plain[0] in archive else packed), labels]
        missing = [name for name in needed if name not in archive]
        if missing:
            raise ValueError(
                f"lacks {', '.join(missing)}; needed are {labels} and either "
                f"{plain[0]}, or {' and '.join(packed)}"
            )
        return {name: archive[name] for name in needed}


def _labels(arrays: Mapping[str, np.ndarray], split: str) -> np.ndarray:
    labels = arrays[f"{split}_labels"]
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"{split}_labels must be integers [n], got {labels.dtype} {labels.shape}"
        )
    if len(labels) == 0 or labels.min() < 0 or labels.max() >= len(CLASSES):
        raise ValueError(f"{split}_labels must be from 0 to {len(CLASSES) - 1}, n > 0")
    return labels


def _pictures(
    arrays: Mapping[str, np.ndarray], split: str, total: int, chosen: np.ndarray
) -> np.ndarray:
    """uint8 ``[chosen, 32, 32, 3]`` of a split with `total` labels."""
    name, shape = f"{split}_images", (total, _SIDE, _SIDE, 3)
    if name in arrays:
        images = arrays[name]
        if images.shape != shape or images.dtype != np.uint8:
            raise ValueError(
                f"{name} must be uint8 {shape}, got {images.dtype} {images.shape}"
            )
        return images[chosen]
    content, ends = arrays[f"{split}_jpeg"], arrays[f"{split}_offsets"]
    if content.dtype != np.uint8 or content.ndim != 1:
        raise ValueError(
            f"{split}_jpeg must be uint8 [bytes], got {content.dtype} {content.shape}"
        )
    if (
        ends.shape != (total + 1,)
        or not np.issubdtype(ends.dtype, np.integer)
        or ends[0] != 0
        or ends[-1] != len(content)
        or np.any(np.diff(ends) <= 0)
    ):
        raise ValueError(
            f"{split}_offsets must be {total + 1} integers that rise from 0 to "
            f"{len(content)}, the length of {split}_jpeg"
        )
    pictures = np.empty((len(chosen), _SIDE, _SIDE, 3), np.uint8)
    for place, i in enumerate(chosen):
        pictures[place] = _decoded(content[ends[i] : ends[i + 1]].tobytes(), i)
    return pictures


def _decoded(content: bytes, index: int) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as picture:
            pixels = np.asarray(picture.convert("RGB"))
    except (OSError, SyntaxError) as error:
        raise ValueError(f"picture {index} cannot be read: {error}") from error
    if pixels.shape != (_SIDE, _SIDE, 3):
        size = "x".join(map(str, pixels.shape[:2]))
        raise ValueError(f"picture {index} is {size}, expected {_SIDE}x{_SIDE}")
    return pixels
