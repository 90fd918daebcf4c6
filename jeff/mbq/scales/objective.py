"""What a quantized module's output is compared by: weighted absolute or squared error.

The objective of MBQ (arXiv 2412.19509, section 3.2) is a weighted mean of elementwise
errors. Everything that distinguishes its variants is in the token weights
(`jeff.mbq.token_weights`); a loss only says how the error of one element is measured.
Losses return a sum and a count, and merging those of two batches gives those of both
together, so that a calibration set may be streamed.
"""

import jax
import jax.numpy as jnp

from jeff.mbq.running_mean import RunningMean

__all__ = ["mae", "mse"]


def mae(
    original: jax.Array, candidate: jax.Array, weights: jax.Array | None = None
) -> RunningMean:
    """Weighted mean absolute error, the objective of MBQ.

    ``sum_t w_t sum_c |y_tc - y'_tc|  /  (C * number of t with w_t != 0)``

    With weights 1 (answer) and ``r`` (vision) this is the original's
    ``(sum_A |d| + r sum_V |d|) / (n_A + n_V)``. The count does not depend on the
    candidate, so it never changes which one is best.

    Args:
      original: ``[..., C]``, output of the full-precision module, any float dtype.
      candidate: ``[..., C]``, output of the quantized module.
      weights: ``[...]``, weight of each token, from `token_weights` or your own
        (per-token gradients, say). ``None``: the plain mean over all elements,
        padding included.

    Returns:
      float32 scalars: weighted sum and number of counted elements. The value is NaN
      if no token is counted.

    Raises:
      ValueError: If the shapes do not match.

    Examples:
      >>> y, z = jnp.array([[[1.0, 2.0], [3.0, 4.0]]]), jnp.zeros((1, 2, 2))
      >>> print(mae(y, z).value)
      2.5
      >>> print(mae(y, z, jnp.array([[0.0, 0.5]])).value)
      1.75

    References:
      arXiv 2412.19509, section 3.2, equations 8 to 13.
    """
    return _weighted(jnp.abs(_difference(original, candidate)), weights)


def mse(
    original: jax.Array, candidate: jax.Array, weights: jax.Array | None = None
) -> RunningMean:
    """Weighted mean squared error, the objective of AWQ and of MBQ's ablation.

    ``sum_t w_t sum_c (y_tc - y'_tc)^2  /  (C * number of t with w_t != 0)``

    MBQ's program averages the squared error within each modality first:
    ``mean_A d^2 + r mean_V d^2``. Weights made by ``token_weights(...,
    average="modalities")`` give that value here.

    Args:
      original: ``[..., C]``, output of the full-precision module, any float dtype.
      candidate: ``[..., C]``, output of the quantized module.
      weights: ``[...]``, weight of each token; ``None`` is the plain mean.

    Returns:
      float32 scalars: weighted sum and number of counted elements.

    Raises:
      ValueError: If the shapes do not match.

    Examples:
      >>> y, z = jnp.array([[[1.0, 2.0], [3.0, 4.0]]]), jnp.zeros((1, 2, 2))
      >>> print(mse(y, z).value)
      7.5

    References:
      arXiv 2412.19509, section 3.2 and the MAE/MSE ablation of section 4.3; AWQ,
      arXiv 2306.00978, section 3.2.
    """
    difference = _difference(original, candidate)
    return _weighted(difference * difference, weights)


def _difference(original: jax.Array, candidate: jax.Array) -> jax.Array:
    """``original - candidate`` in float32."""
    if jnp.shape(original) != jnp.shape(candidate):
        raise ValueError(
            "original and candidate must have one shape, got "
            f"{jnp.shape(original)} and {jnp.shape(candidate)}"
        )
    return jnp.asarray(original, jnp.float32) - jnp.asarray(candidate, jnp.float32)


def _weighted(error: jax.Array, weights: jax.Array | None) -> RunningMean:
    """Weighted sum of ``error [..., C]`` and number of elements counted."""
    *tokens, channels = error.shape
    if weights is None:
        return RunningMean(error.sum(), jnp.float32(error.size))
    if jnp.shape(weights) != tuple(tokens):
        raise ValueError(
            f"weights must have the shape of the tokens {tuple(tokens)}, "
            f"got {jnp.shape(weights)}"
        )
    weights = jnp.asarray(weights, jnp.float32)
    total = (error.sum(axis=-1) * weights).sum()
    counted = jnp.sum(weights != 0, dtype=jnp.float32)
    return RunningMean(total, counted * jnp.float32(channels))
