"""The networks that ``jeff run dm-bnn`` looks at, and the inputs it asks them about."""

from typing import Any, NamedTuple

import jax
import numpy as np

from jeff.dm_bnn.mean_field import posterior
from jeff.models import digits_mlp

__all__ = ["KINDS", "QUICK", "Subject", "load"]

KINDS = ("digits", "rotated", "uniform")
"""Test digits; the same turned by a quarter; pixels uniform in [0, 1]."""

QUICK = {"xla_backend_optimization_level": 1}
"""How programs are compiled that are called a few times and not timed: compiling them
takes longer than running them."""


class Subject(NamedTuple):
    """A posterior, its twin, and data.

    Attributes:
      posterior: Params of `jeff.models.digits_mlp.apply` with random kernels.
      trained: What the posterior was made of, with the deterministic twin.
      train: Digits the networks were trained on.
      inputs: float32 ``[kinds, 600, 64]``, in the order of `KINDS`, on the host.
      labels: int32 ``[600]``, of the first kind.
    """

    posterior: Any
    trained: digits_mlp.Trained
    train: digits_mlp.Part
    inputs: np.ndarray
    labels: np.ndarray


def load(rng: np.random.Generator) -> Subject:
    """The embedded networks and inputs.

    Args:
      rng: Of the uniform pixels.

    Returns:
      The subject.

    Raises:
      ValueError: If an embedded file is missing or altered.
    """
    trained = digits_mlp.load()
    train, test = digits_mlp.split()
    random = posterior(trained.mean, trained.std, where=_is_kernel)
    turned = np.rot90(test.images.reshape(-1, 8, 8), axes=(1, 2)).reshape(-1, 64)
    noise = rng.random(test.images.shape, np.float32)
    inputs = np.stack([test.images, turned, noise])
    return Subject(random, trained, train, inputs, test.labels)


def _is_kernel(name: str, leaf: jax.Array) -> bool:
    """Biases were trained as point estimates."""
    del leaf
    return name.endswith("kernel")
