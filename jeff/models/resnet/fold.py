"""Batch normalisation folded into the convolution before it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["fold_batch_norm"]


def fold_batch_norm(
    kernel: Any,
    bias: Any,
    *,
    gain: Any,
    offset: Any,
    mean: Any,
    variance: Any,
    epsilon: float,
) -> dict[str, jax.Array]:
    """A convolution and the normalisation behind it as one convolution.

    ``kernel * s`` and ``(bias - mean) * s + offset`` with ``s = gain / sqrt(variance +
    epsilon)``, computed in float64 on the host.

    Args:
      kernel: ``[..., out]``.
      bias: ``[out]``.
      gain: ``[out]``.
      offset: ``[out]``.
      mean: ``[out]``, the running mean.
      variance: ``[out]``, the running variance.
      epsilon: What is added to the variance.

    Returns:
      ``kernel`` and ``bias``, float32.

    Examples:
      >>> one = np.ones(1)
      >>> layer = fold_batch_norm(
      ...     np.ones((1, 1)), 3 * one, gain=2 * one, offset=one, mean=one,
      ...     variance=4 * one, epsilon=0.0)
      >>> layer["kernel"].item(), layer["bias"].item()
      (1.0, 3.0)

    References:
      S. Ioffe and C. Szegedy, arXiv 1502.03167, algorithm 2 (inference), read as one
      affine map.
    """
    kernel, bias, gain, offset, mean, variance = (
        np.asarray(a, np.float64) for a in (kernel, bias, gain, offset, mean, variance)
    )
    scale = gain / np.sqrt(variance + epsilon)
    return {
        "kernel": jnp.asarray(kernel * scale, jnp.float32),
        "bias": jnp.asarray((bias - mean) * scale + offset, jnp.float32),
    }
