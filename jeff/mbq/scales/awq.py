"""AWQ's scale that looks at the weights too ("duo scaling").

Plain AWQ uses `jeff.mbq.scales.balance.balance_scale`; this is the later variant of its
ports (AutoAWQ, llm-compressor).
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jeff.mbq.scales.balance import SMALLEST, centred

__all__ = ["awq_scale", "weight_magnitude"]


def weight_magnitude(w: jax.Array, group_size: int | None = None) -> jax.Array:
    """Mean over outputs of each weight relative to the largest of its group.

    ``m_c = mean_o |w_co| / (max over the group of c of |w_.o| + 1e-6)``

    Args:
      w: ``[in, out]``; concatenate layers that share an input along the outputs.
      group_size: Inputs per group; ``None``: all inputs are one group.

    Returns:
      float32 ``[in]``, in [0, 1].

    Raises:
      ValueError: If `w` is not a matrix or its inputs do not divide into groups.

    Examples:
      >>> print(weight_magnitude(jnp.array([[1.0], [-2.0], [3.0], [0.0]]), 2).round(3))
      [0.5 1.  1.  0. ]
    """
    if jnp.ndim(w) != 2:
        raise ValueError(f"w must have shape [in, out], got {jnp.shape(w)}")
    size = w.shape[0] if group_size is None else group_size
    if size < 1 or w.shape[0] % size:
        raise ValueError(
            f"group_size must divide the {w.shape[0]} inputs, got {group_size}"
        )
    groups = jnp.abs(jnp.asarray(w, jnp.float32)).reshape(-1, size, w.shape[1])
    relative = groups / (groups.max(axis=1, keepdims=True) + 1e-6)
    return relative.mean(axis=-1).reshape(-1)


def awq_scale(
    magnitude: jax.Array, weight_magnitude: jax.Array, alpha: ArrayLike
) -> jax.Array:
    """The duo scale of one candidate.

    ``s = max(m_x^alpha / (m_w^(1 - alpha) + 1e-4), 1e-4)``, centred as in
    `balance_scale`. Here ``alpha = 0`` is not the scale 1: try that one as well if
    the result must not lose against plain rounding.

    Args:
      magnitude: ``[C]``, from `activation_magnitude`.
      weight_magnitude: ``[C]``, from `weight_magnitude`.
      alpha: Scalar exponent in [0, 1].

    Returns:
      float32 ``[C]``, positive.

    Raises:
      ValueError: If a shape is wrong.

    Examples:
      >>> print(awq_scale(jnp.array([1.0, 4.0]), jnp.ones(2), 0.5).round(4))
      [0.7071 1.4142]

    Note:
      The ports replace infinite and NaN scales by 1. Here they stay, so that bad
      calibration data shows.
    """
    shapes = jnp.shape(magnitude), jnp.shape(weight_magnitude)
    if len(shapes[0]) != 1 or shapes[0] != shapes[1]:
        raise ValueError(
            "magnitude and weight_magnitude must have one shape [channels], got "
            f"{shapes[0]} and {shapes[1]}"
        )
    if jnp.ndim(alpha) != 0:
        raise ValueError(f"alpha must be a scalar, got shape {jnp.shape(alpha)}")
    alpha = jnp.asarray(alpha, jnp.float32)
    over = jnp.power(jnp.asarray(magnitude, jnp.float32), alpha)
    under = jnp.power(jnp.asarray(weight_magnitude, jnp.float32), 1.0 - alpha) + 1e-4
    return centred(jnp.maximum(over / under, SMALLEST))
