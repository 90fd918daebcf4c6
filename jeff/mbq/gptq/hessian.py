"""Hessian of a linear layer's squared error: second moments of its input.

For ``y = x @ w`` with weights `w` ``[K, N]``, an error `d` of `w` costs, per output,
``d^T H d`` with ``H = mean_t a_t x_t x_t^T``, where `a_t` weighs token `t`: 1 for GPTQ,
the modality's ratio for a modality-balanced one.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jeff.mbq.running_mean import RunningMean

__all__ = ["activation_hessian", "inverse_factor"]


def activation_hessian(
    x: jax.Array, weights: jax.Array | None = None, *, batch_axes: int = 0
) -> RunningMean:
    """Weighted second moments of an activation, for one batch.

    Args:
      x: ``[*batch, ..., K]``, any float dtype.
      weights: Weight of every token, not negative, of the shape of `x` without its
        last axis; every token alike if ``None``.
      batch_axes: Number of leading axes of which each entry has a Hessian of its own
        (experts).

    Returns:
      float32: total ``[*batch, K, K]``, ``sum_t a_t x_t x_t^T``, and the number of
      tokens; `RunningMean.merge` batches, then take the value. (The factor 2 of a
      second derivative changes no result.)

    Raises:
      ValueError: If `x` has no channel axis beside the batch axes, or `weights` has
        another shape.

    Examples:
      >>> x = jnp.array([[1.0, 2.0], [3.0, 0.0]])
      >>> print(activation_hessian(x).value)
      [[5. 1.]
       [1. 2.]]
      >>> print(activation_hessian(x, jnp.array([0.0, 1.0])).total)
      [[9. 0.]
       [0. 0.]]

    References:
      GPTQ, arXiv 2210.17323, section 3.1; weights per token as in VLMQ, arXiv
      2508.03351.
    """
    if jnp.ndim(x) <= batch_axes:
        raise ValueError(
            f"x must have an axis of channels after {batch_axes} batch axes, "
            f"got shape {jnp.shape(x)}"
        )
    x = jnp.asarray(x, jnp.float32)
    weighted = x
    if weights is not None:
        if jnp.shape(weights) != x.shape[:-1]:
            raise ValueError(
                f"weights must have the shape of the tokens, {x.shape[:-1]}, "
                f"got {jnp.shape(weights)}"
            )
        weighted = x * jnp.asarray(weights, jnp.float32)[..., None]
    rows = _flat(x.shape, batch_axes)
    x, weighted = x.reshape(rows), weighted.reshape(rows)
    total = jnp.einsum("...tk,...tl->...kl", weighted, x, precision="highest")
    return RunningMean(total, jnp.float32(rows[-2]))


def inverse_factor(hessian: jax.Array, damping: jax.Array | float) -> jax.Array:
    """Upper triangular `U` with ``U^T U`` the inverse of the damped Hessian.

    The Hessian gets `damping` times the mean of its diagonal added to the diagonal. A
    dead channel (zero diagonal: no input of the calibration data excites it) gets that
    mean itself, or 1, so that it neither gives nor takes a correction, and does not
    count in the mean.

    With the Hessian's reverse Cholesky factor, ``H = R R^T`` for an upper triangular
    `R`, this is ``U = R^-1``: the Cholesky factor of the inverse, without forming the
    inverse.

    Args:
      hessian: ``[K, K]``, symmetric, positive semidefinite.
      damping: Not negative.

    Returns:
      float32 ``[K, K]``; NaN if the damped Hessian is not positive definite.

    Examples:
      >>> u = inverse_factor(jnp.array([[5.0, 2.0], [2.0, 1.0]]), 0.0)
      >>> print(u)
      [[ 1. -2.]
       [ 0.  1.]]
      >>> print(u.T @ u)  # the inverse
      [[ 1. -2.]
       [-2.  5.]]

    References:
      GPTQ, arXiv 2210.17323, section 3.3, step 3, and algorithm 1.
    """
    h = jnp.asarray(hessian, jnp.float32)
    diagonal = jnp.diagonal(h)
    dead = diagonal == 0.0
    mean = diagonal.sum() / jnp.maximum((~dead).sum(dtype=jnp.float32), 1.0)
    filled = jnp.where(dead, jnp.where(mean > 0.0, mean, 1.0), 0.0)
    h = h + jnp.diag(filled + damping * mean)
    reverse = jnp.linalg.cholesky(h[::-1, ::-1])[::-1, ::-1]
    unit = jnp.eye(h.shape[0], dtype=jnp.float32)
    return jnp.triu(jax.scipy.linalg.solve_triangular(reverse, unit, lower=False))


def _flat(shape: Sequence[int], batch_axes: int) -> tuple[int, ...]:
    """``[*batch, tokens, K]``."""
    tokens = 1
    for n in shape[batch_axes:-1]:
        tokens *= n
    return (*shape[:batch_axes], tokens, shape[-1])
