"""SmoothQuant's scale: outliers move from the activations into the weights."""

import jax
import jax.numpy as jnp

from jeff.mbq.calibration.masks import is_traced

__all__ = ["channel_max", "smoothquant_scale"]

SMALLEST = 1e-5


def channel_max(x: jax.Array) -> jax.Array:
    """Largest absolute value of each channel; merge batches with `jnp.maximum`.

    For a weight ``[in, out]`` pass its transpose.

    Args:
      x: ``[..., C]``, any float dtype.

    Returns:
      float32 ``[C]``.

    Raises:
      ValueError: If `x` has no channel axis.

    Examples:
      >>> print(channel_max(jnp.array([[1.0, -4.0], [-3.0, 0.0]])))
      [3. 4.]
    """
    if jnp.ndim(x) == 0:
        raise ValueError("x must have an axis of channels last, got a scalar")
    return jnp.abs(jnp.asarray(x, jnp.float32)).max(axis=tuple(range(jnp.ndim(x) - 1)))


def smoothquant_scale(
    max_abs_x: jax.Array, max_abs_w: jax.Array, alpha: float | jax.Array = 0.5
) -> jax.Array:
    """The scale that shares the quantization difficulty of activations and weights.

    ``s = max(max|x|^alpha / max(max|w|, 1e-5)^(1 - alpha), 1e-5)``

    Args:
      max_abs_x: ``[C]``, from `channel_max` over all calibration tokens.
      max_abs_w: ``[C]``, largest weight of each input channel over all outputs of
        all layers that share the input.
      alpha: Migration strength in [0, 1]; 0 leaves all the difficulty in the
        activations, 1 moves all of it into the weights.

    Returns:
      float32 ``[C]``: divide the activations by it, multiply the weights' inputs.

    Raises:
      ValueError: If a shape is wrong or `alpha` is outside [0, 1] (unless traced).

    Examples:
      >>> print(smoothquant_scale(jnp.array([16.0, 1.0]), jnp.array([1.0, 4.0])))
      [4.  0.5]

    References:
      SmoothQuant, arXiv 2211.10438, equation 4; the clamps are its program's.
    """
    if jnp.ndim(max_abs_x) != 1 or jnp.shape(max_abs_x) != jnp.shape(max_abs_w):
        raise ValueError(
            "max_abs_x and max_abs_w must have one shape [channels], got "
            f"{jnp.shape(max_abs_x)} and {jnp.shape(max_abs_w)}"
        )
    if not is_traced(alpha) and not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1], got {alpha}")
    alpha = jnp.asarray(alpha, jnp.float32)
    x = jnp.asarray(max_abs_x, jnp.float32)
    w = jnp.maximum(jnp.asarray(max_abs_w, jnp.float32), SMALLEST)
    return jnp.maximum(jnp.power(x, alpha) / jnp.power(w, 1.0 - alpha), SMALLEST)
