"""A small network for handwritten digits: 64 pixels, two hidden layers of 100, ReLU.

The trained weights in the wheel are a Gaussian posterior (a mean and a standard
deviation for each weight, none for a bias) and a deterministic twin, trained on the
same part of the digits. `benchmarks/train_digits_bnn.py` made them.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jeff.data import embedded

__all__ = [
    "SIZES",
    "Part",
    "Trained",
    "apply",
    "init",
    "load",
    "preprocess",
    "split",
]

SIZES = (64, 100, 100, 10)
"""Pixels, hidden units, digits."""

_TEST = 600  # examples nothing is trained on
_FILE = "digits_bnn"


class Part(NamedTuple):
    """Some of the digits, as the network takes them.

    Attributes:
      images: float32 ``[examples, 64]``, from 0 to 1.
      labels: int32 ``[examples]``.
    """

    images: np.ndarray
    labels: np.ndarray


class Trained(NamedTuple):
    """Params trees for `apply`, float32.

    Attributes:
      mean: Means of the posterior; point estimates for the biases.
      std: Its standard deviations; 0 for the biases.
      deterministic: The twin, trained without noise and prior.
    """

    mean: dict[str, Any]
    std: dict[str, Any]
    deterministic: dict[str, Any]


def apply(params: dict[str, Any], x: jax.Array) -> jax.Array:
    """Logits of the ten digits.

    Args:
      params: ``{"fc1": {"kernel", "bias"}, "fc2": ..., "fc3": ...}``, kernels
        ``[inputs, outputs]``.
      x: Images as `preprocess` gives them, ``[..., 64]``.

    Returns:
      ``[..., 10]``.

    Examples:
      >>> params = jax.eval_shape(init, jax.random.key(0))
      >>> jax.eval_shape(apply, params, jnp.zeros((2, 64))).shape
      (2, 10)
    """
    for name in ("fc1", "fc2"):
        x = jax.nn.relu(x @ params[name]["kernel"] + params[name]["bias"])
    return x @ params["fc3"]["kernel"] + params["fc3"]["bias"]


def init(key: jax.Array) -> dict[str, Any]:
    """Params to start training from: He's normal kernels, biases of zero.

    Args:
      key: Any JAX key.

    Returns:
      Params of `apply`, float32.

    Examples:
      >>> jax.eval_shape(init, jax.random.key(0))["fc3"]["kernel"].shape
      (100, 10)

    References:
      K. He et al., "Delving deep into rectifiers", ICCV 2015 (arXiv 1502.01852),
      equation 10.
    """
    layers = zip(jax.random.split(key, 3), SIZES[:-1], SIZES[1:], strict=True)
    return {
        f"fc{i}": {
            "kernel": jax.random.normal(k, (n, m), jnp.float32) * (2 / n) ** 0.5,
            "bias": jnp.zeros(m, jnp.float32),
        }
        for i, (k, n, m) in enumerate(layers, 1)
    }


def preprocess(images: Any) -> Any:
    """Images as the network takes them.

    Args:
      images: ``[..., 8, 8]``, ink from 0 to 16.

    Returns:
      float32 ``[..., 64]`` from 0 to 1.

    Raises:
      ValueError: If images are not 8x8.

    Examples:
      >>> float(preprocess(np.full((8, 8), 16)).mean())
      1.0
    """
    if images.shape[-2:] != (8, 8):
        raise ValueError(f"images must be [..., 8, 8]: {images.shape}")
    return images.reshape(*images.shape[:-2], 64).astype(np.float32) / np.float32(16)


def split() -> tuple[Part, Part]:
    """The embedded digits, divided as they were for training.

    A fixed random order; its last 600 are the test part. The same people wrote both
    parts.

    Returns:
      ``(train, test)``: 1,197 and 600 examples.

    Raises:
      ValueError: If the file of the digits is corrupt.

    Examples:
      >>> train, test = split()
      >>> train.images.shape, test.labels[:3]
      ((1197, 64), array([9, 9, 6], dtype=int32))
    """
    digits = embedded.load_digits()
    order = np.random.default_rng(0).permutation(len(digits.labels))
    images, labels = preprocess(digits.images)[order], digits.labels[order]
    cut = len(order) - _TEST
    return Part(images[:cut], labels[:cut]), Part(images[cut:], labels[cut:])


def load() -> Trained:
    """The trained weights in the wheel.

    Returns:
      A posterior and its deterministic twin (stored in float16). With `jeff.dm_bnn`:
      ``posterior(found.mean, found.std, where=lambda n, _: n.endswith("kernel"))``.

    Raises:
      ValueError: If the weight file is corrupt.

    Examples:
      >>> train, test = split()
      >>> logits = apply(load().mean, test.images)
      >>> bool((logits.argmax(-1) == test.labels).mean() > 0.95)
      True
    """
    trees: dict[str, Any] = {field: {} for field in Trained._fields}
    for name, array in embedded.load_weights(_FILE).items():
        field, layer, leaf = name.split(".")
        trees[field].setdefault(layer, {})[leaf] = jnp.asarray(array, jnp.float32)
    for layer, leaves in trees["mean"].items():
        bias = jnp.zeros_like(leaves["bias"])
        trees["std"][layer]["bias"] = bias
    return Trained(**trees)
