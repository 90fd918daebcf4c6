"""Balance scales: the candidates of the search and the choice among them.

Scaling the input channels of a linear layer, ``W' = W * s`` and ``x' = x / s``, changes
nothing until W' is quantized. AWQ (arXiv 2306.00978, section 3.2) and MBQ (arXiv
2412.19509, section 3.2, there called equalization) try 20 scales between "none" and
"all channels of equal magnitude" and keep the one with the smallest loss.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jeff.mbq.calibration.masks import is_traced
from jeff.mbq.running_mean import RunningMean

__all__ = [
    "activation_magnitude",
    "balance_grid",
    "balance_scale",
    "best_candidate",
    "centred",
]

SMALLEST = 1e-4  # clamp of a channel's scale, from the original programs


def activation_magnitude(x: jax.Array) -> RunningMean:
    """Mean absolute activation of each channel over all tokens.

    Padding and prompt tokens are counted like all others, as in the original.

    Args:
      x: ``[..., C]``, any float dtype.

    Returns:
      float32: total ``[C]`` and the number of tokens; `RunningMean.merge` batches,
      then take the value.

    Raises:
      ValueError: If `x` has no channel axis.

    Examples:
      >>> print(activation_magnitude(jnp.array([[1.0, -4.0], [-3.0, 0.0]])).value)
      [2. 2.]
    """
    if jnp.ndim(x) == 0:
        raise ValueError("x must have an axis of channels last, got a scalar")
    x = jnp.abs(jnp.asarray(x, jnp.float32))
    tokens = x.size // x.shape[-1]
    return RunningMean(x.sum(axis=tuple(range(x.ndim - 1))), jnp.float32(tokens))


def balance_grid(n: int = 20) -> jax.Array:
    """The exponents tried: ``0, 1/n, ..., (n-1)/n``; 1 itself never is.

    Args:
      n: Number of candidates; at least 1.

    Returns:
      float32 ``[n]``.

    Raises:
      ValueError: If `n` is less than 1.

    Examples:
      >>> print(balance_grid(4))
      [0.   0.25 0.5  0.75]
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    return jnp.asarray(np.arange(n) / n, jnp.float32)


def balance_scale(
    magnitude: jax.Array,
    alpha: ArrayLike,
    *,
    share: ArrayLike | None = None,
    reduce: str = "max",
) -> jax.Array:
    """The scale of one candidate: a power of the activation magnitude, centred.

    ``s = max(m^alpha, 1e-4)``, then ``s <- s / sqrt(max(s) min(s))``. ``alpha = 0`` is
    the scale 1. Use `jax.vmap` over `alpha` for all candidates at once.

    Channels that are produced by one and the same channel further up must have one
    scale to be folded into it: with grouped-query attention, input ``(head, i)`` of
    the output projection comes from value channel ``(head // group, i)``. `share`
    names these classes; their magnitudes are reduced to one before the formula.

    Args:
      magnitude: ``[C]``, from `activation_magnitude`; not negative.
      alpha: Scalar exponent in [0, 1].
      share: int ``[C]``, class of each channel, in ``[0, C)``; ``None``: all differ.
      reduce: ``"max"`` or ``"mean"`` of the magnitudes of a class.

    Returns:
      float32 ``[C]``, positive, with ``max(s) * min(s) == 1``.

    Raises:
      TypeError: If `share` is not of integers.
      ValueError: If a shape is wrong, `reduce` is unknown, or a class is out of
        range (checked unless traced).

    Examples:
      >>> print(balance_scale(jnp.array([1.0, 4.0, 16.0]), 0.5))
      [0.5 1.  2. ]
      >>> heads, kv_heads, size = 4, 2, 1
      >>> channel = np.arange(heads * size)
      >>> share = channel // size // (heads // kv_heads) * size + channel % size
      >>> print(share)
      [0 0 1 1]
      >>> print(balance_scale(jnp.array([1.0, 4.0, 1.0, 64.0]), 0.5, share=share))
      [0.5 0.5 2.  2. ]

    References:
      AWQ, arXiv 2306.00978, section 3.2; the clamp and the centring are its
      program's. Sharing is ours (the original skips such layers).
    """
    if jnp.ndim(magnitude) != 1:
        raise ValueError(
            f"magnitude must have shape [channels], got {jnp.shape(magnitude)}"
        )
    if jnp.ndim(alpha) != 0:
        raise ValueError(f"alpha must be a scalar, got shape {jnp.shape(alpha)}")
    if reduce not in ("max", "mean"):
        raise ValueError(f"reduce must be 'max' or 'mean', got {reduce!r}")
    magnitude = jnp.asarray(magnitude, jnp.float32)
    if share is not None:
        magnitude = _shared(magnitude, share, reduce)
    powered = jnp.power(magnitude, jnp.asarray(alpha, jnp.float32))
    return centred(jnp.maximum(powered, SMALLEST))


def centred(scale: jax.Array) -> jax.Array:
    """`scale` over the geometric mean of its largest and smallest entry.

    Args:
      scale: ``[C]``, positive.

    Returns:
      ``[C]``, with ``max(s) * min(s) == 1``.

    Examples:
      >>> print(centred(jnp.array([1.0, 2.0, 16.0])))
      [0.25 0.5  4.  ]
    """
    return scale / jnp.sqrt(scale.max() * scale.min())


def best_candidate(losses: jax.Array) -> jax.Array:
    """Index of the smallest loss, the first one if several are equal.

    Args:
      losses: ``[..., candidates]``. A NaN never wins, unless all are.

    Returns:
      int32 ``[...]``.

    Examples:
      >>> print(best_candidate(jnp.array([jnp.nan, 3.0, 2.0, 2.0])))
      2
    """
    losses = jnp.where(jnp.isnan(losses), jnp.inf, losses)
    return jnp.argmin(losses, axis=-1).astype(jnp.int32)


def _shared(magnitude: jax.Array, share: ArrayLike, reduce: str) -> jax.Array:
    """Replaces each magnitude by the maximum or mean of its class."""
    size = magnitude.shape[0]
    classes = share if isinstance(share, jax.Array) else np.asarray(share)
    if not jnp.issubdtype(classes.dtype, jnp.integer):
        raise TypeError(f"share must be integers, got {classes.dtype}")
    if classes.shape != (size,):
        raise ValueError(
            f"share must have one class per channel, shape ({size},), "
            f"got {classes.shape}"
        )
    if not is_traced(classes) and (classes.min() < 0 or classes.max() >= size):
        raise ValueError(
            f"share must be in [0, {size}), got values from {classes.min()} "
            f"to {classes.max()}"
        )
    classes = jnp.asarray(classes, jnp.int32)
    if reduce == "max":
        return jax.ops.segment_max(magnitude, classes, num_segments=size)[classes]
    total = jax.ops.segment_sum(magnitude, classes, num_segments=size)
    members = jax.ops.segment_sum(jnp.ones_like(magnitude), classes, num_segments=size)
    return total[classes] / members[classes]
