"""What ships in the wheel: trained weights, image questions, handwritten digits.

Every file is checked against the SHA-256 in `checksums.json` before it is used. Sources
and licences are in the README beside the files. Importing this module reads nothing.
"""

import hashlib
import io
import json
from importlib import resources
from importlib.resources import abc
from typing import NamedTuple

import numpy as np
import safetensors.numpy

__all__ = [
    "VQA",
    "Digits",
    "VQAPart",
    "load_digits",
    "load_vqa",
    "load_weights",
    "names",
    "read",
]

_SUMS = "checksums.json"


class Digits(NamedTuple):
    """Handwritten digits.

    Attributes:
      images: uint8 ``[1797, 8, 8]``, ink from 0 to 16.
      labels: int32 ``[1797]``, the digit 0 to 9.

    Examples:
      >>> images, labels = load_digits()
      >>> images.dtype, int(images.max())
      (dtype('uint8'), 16)
    """

    images: np.ndarray
    labels: np.ndarray


class VQAPart(NamedTuple):
    """Images and all questions asked about them.

    Attributes:
      images: uint8 ``[images, 64, 64, 3]``, RGB.
      image_index: int32 ``[questions]``, the row of `images` a question is about.
      tokens: int32 ``[questions, 9]``, padded on the left with 0; words of
        `jeff.models.tiny_vlm.VOCABULARY`.
      answers: int32 ``[questions]``, likewise one word.

    Examples:
      >>> from jeff.models.vqa_words import VOCABULARY, detokenize
      >>> part = load_vqa().test
      >>> detokenize(part.tokens[:1]), VOCABULARY[part.answers[0]]
      (['what is the red shape'], 'triangle')
    """

    images: np.ndarray
    image_index: np.ndarray
    tokens: np.ndarray
    answers: np.ndarray


class VQA(NamedTuple):
    """A slice of easy-VQA.

    Attributes:
      calibration: The first 150 training images; the model was trained on them.
      test: The first 300 test images; nothing was trained on them.

    Examples:
      >>> data = load_vqa()
      >>> len(data.calibration.answers), len(data.test.answers)
      (1467, 2948)
    """

    calibration: VQAPart
    test: VQAPart


def load_vqa() -> VQA:
    """Reads the image questions.

    Returns:
      The two parts.

    Raises:
      ValueError: If the file is missing, truncated or altered; it is named.

    Examples:
      >>> part = load_vqa().test
      >>> part.images.shape, part.tokens.shape[1]
      ((300, 64, 64, 3), 9)
    """
    arrays = _load_npz("easy_vqa.npz")
    return VQA(
        *(
            VQAPart(
                images=arrays[f"{part}_images"],
                image_index=arrays[f"{part}_image_index"].astype(np.int32),
                tokens=arrays[f"{part}_tokens"].astype(np.int32),
                answers=arrays[f"{part}_answers"].astype(np.int32),
            )
            for part in VQA._fields
        )
    )


def load_digits() -> Digits:
    """Reads the handwritten digits.

    Returns:
      1,797 images and labels.

    Raises:
      ValueError: If the file is missing, truncated or altered; it is named.

    Examples:
      >>> digits = load_digits()
      >>> digits.images.shape, digits.labels[:5]
      ((1797, 8, 8), array([0, 1, 2, 3, 4], dtype=int32))
    """
    arrays = _load_npz("digits.npz")
    return Digits(arrays["images"], arrays["labels"].astype(np.int32))


def load_weights(name: str) -> dict[str, np.ndarray]:
    """Reads a weight file, as stored.

    Args:
      name: ``"tiny_vlm"``, ``"efficientnet_lite0_features"`` or ``"digits_bnn"``.

    Returns:
      float16 arrays by dotted name.

    Raises:
      ValueError: If the file is unknown, missing, truncated or altered; it is named.

    Examples:
      >>> load_weights("tiny_vlm")["layers.mlp.up.kernel"].shape
      (4, 128, 256)
    """
    return safetensors.numpy.load(read(f"{name}.safetensors"))


def names() -> tuple[str, ...]:
    """Names of the embedded files.

    Returns:
      File names, sorted.

    Raises:
      ValueError: If the list of checksums is missing or altered.

    Examples:
      >>> names()[:2]
      ('digits.npz', 'digits_bnn.safetensors')
    """
    return tuple(_checksums())


def read(name: str) -> bytes:
    """Bytes of an embedded file, checked.

    Args:
      name: One of `names`.

    Returns:
      The bytes.

    Raises:
      ValueError: If the file is unknown, missing, truncated or altered; it is named.

    Examples:
      >>> read("digits.npz")[:2]  # a zip archive
      b'PK'
    """
    sums = _checksums()
    if name not in sums:
        raise ValueError(f"unknown embedded file {name!r}; known: {', '.join(sums)}")
    try:
        content = _file(name).read_bytes()
    except OSError as error:
        raise ValueError(f"embedded file {name} cannot be read: {error}") from error
    if hashlib.sha256(content).hexdigest() != sums[name]:
        raise ValueError(
            f"embedded file {_file(name)} is corrupt: its {len(content)} bytes do not "
            f"have the SHA-256 of {_SUMS}; install jeff again"
        )
    return content


def _load_npz(name: str) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(read(name)), allow_pickle=False) as file:
        return dict(file)


def _checksums() -> dict[str, str]:
    """SHA-256 by file name."""
    try:
        return json.loads(_file(_SUMS).read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"embedded file {_file(_SUMS)} is corrupt: {error}") from error


def _file(name: str) -> abc.Traversable:
    return resources.files("jeff.data").joinpath(name)
