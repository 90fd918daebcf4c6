"""Log-likelihoods of single examples, for the evidence lower bound."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["LogLikelihood", "categorical", "gaussian"]

LogLikelihood = Callable[[jax.Array, jax.Array], jax.Array]
"""``log_likelihood(outputs, targets) -> nats``, ``[batch]``."""


def categorical(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """``ln p(label)`` of a classifier.

    Args:
      logits: ``[batch, classes]``, floating.
      labels: Classes, ``[batch]``, integers.

    Returns:
      Nats ``[batch]``, float32 (float64 for float64 logits).

    Raises:
      ValueError: If the shapes do not fit.

    Examples:
      >>> print(categorical(jnp.zeros((1, 4)), jnp.array([2])))  # -ln 4
      [-1.3862944]
    """
    if logits.ndim < 1 or logits.shape[:-1] != labels.shape:
        raise ValueError(
            "labels must have the shape of logits without its last axis: "
            f"logits {logits.shape}, labels {labels.shape}"
        )
    wide = np.promote_types(logits.dtype, jnp.float32)
    log_probs = jax.nn.log_softmax(logits.astype(wide))
    return jnp.take_along_axis(log_probs, labels[..., None], axis=-1)[..., 0]


def gaussian(noise_std: float) -> LogLikelihood:
    """``ln N(target; output, noise_std^2)`` of a regression, summed over its outputs.

    Args:
      noise_std: Standard deviation of the targets around the outputs, positive.

    Returns:
      A function of outputs and targets ``[batch, ...]``, floating, which gives nats
      ``[batch]`` and raises ValueError if the two differ in shape.

    Raises:
      ValueError: If `noise_std` is not positive and finite.

    Examples:
      >>> print(gaussian(1.0)(jnp.zeros((1, 2)), jnp.ones((1, 2))))  # -1 - ln(2 pi)
      [-2.837877]
    """
    if not 0 < noise_std < float("inf"):
        raise ValueError(f"noise_std must be positive and finite: {noise_std}")
    constant = float(np.log(2 * np.pi) / 2 + np.log(noise_std))

    def log_likelihood(outputs: jax.Array, targets: jax.Array) -> jax.Array:
        if outputs.shape != targets.shape:
            raise ValueError(
                "targets must have the shape of the outputs: "
                f"{targets.shape}, {outputs.shape}"
            )
        wide = np.promote_types(outputs.dtype, jnp.float32)
        off = (outputs.astype(wide) - targets.astype(wide)) / noise_std
        each = -jnp.square(off) / 2 - constant
        return each.reshape(len(each), -1).sum(-1)

    return log_likelihood
