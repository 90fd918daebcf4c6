"""The networks of the benchmark, their posteriors and inputs."""

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jeff import dm_bnn
from jeff.models import digits_mlp

__all__ = ["SIZES", "STD", "apply", "digits_posterior", "inputs", "random_posterior"]

SIZES = (784, 200, 200, 10)
"""Inputs, hidden units, outputs; no biases, as in the formulas that are checked."""
STD = 0.05
"""Standard deviation of every weight."""


def apply(params: dict[str, Any], x: jax.Array) -> jax.Array:
    """Outputs of a network with ReLU between its layers.

    Args:
      params: Kernels ``[inputs, outputs]``, named so that their order is sorted.
      x: ``[rows, inputs]``.

    Returns:
      ``[rows, outputs]``.
    """
    *hidden, last = (params[name] for name in sorted(params))
    for kernel in hidden:
        x = jax.nn.relu(x @ kernel)
    return x @ last


def random_posterior(seed: int, sizes: Sequence[int] = SIZES) -> dict[str, Any]:
    """Untrained weights: He's normal means, standard deviations `STD` times 0.5 to 1.5.

    Args:
      seed: Of the draws.
      sizes: Of the layers.

    Returns:
      Params of `apply`, `jeff.dm_bnn.MeanField`, float32.
    """
    rng = np.random.default_rng(seed)
    found = {}
    for i, (n, m) in enumerate(itertools.pairwise(sizes), 1):
        mean = rng.standard_normal((n, m), np.float32) * np.float32((2 / n) ** 0.5)
        std = rng.uniform(0.5 * STD, 1.5 * STD, (n, m)).astype(np.float32)
        found[f"fc{i}"] = dm_bnn.MeanField(jnp.asarray(mean), jnp.asarray(std))
    return found


def digits_posterior() -> dict[str, Any]:
    """The embedded trained network for digits.

    Returns:
      Params of `jeff.models.digits_mlp.apply` with random kernels.
    """
    trained = digits_mlp.load()
    return dm_bnn.posterior(
        trained.mean, trained.std, where=lambda name, _: name.endswith("kernel")
    )


def inputs(seed: int, rows: int, width: int = SIZES[0]) -> np.ndarray:
    """Pictures that are none: numbers uniform in [0, 1].

    Args:
      seed: Of the draws.
      rows: How many.
      width: Numbers of each.

    Returns:
      float32 ``[rows, width]``; fewer rows are the beginning of more.
    """
    rng = np.random.default_rng([seed, 1])
    return rng.uniform(0, 1, (rows, width)).astype(np.float32)
