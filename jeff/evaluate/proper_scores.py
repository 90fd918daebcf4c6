"""Proper scores of predicted probabilities: best for who says what he believes."""

import jax
import jax.numpy as jnp

__all__ = ["brier", "checked_probs", "nll"]

_OFF = 0.01  # how far a sum of probabilities may be from 1; bfloat16 stays below 0.004


def brier(probs: jax.Array, labels: jax.Array) -> jax.Array:
    """Brier score: mean over examples of ``sum_k (p_k - [label = k])^2``.

    Args:
      probs: Probabilities ``[..., classes]``, floating; all leading axes are examples.
      labels: Classes in ``[0, classes)``, ``[...]``, integers.

    Returns:
      A float32 scalar in [0, 2]; NaN where probabilities are NaN or do not sum to 1, or
      a label is not a class.

    Raises:
      ValueError: If the shapes do not fit or there is no example.
      TypeError: If `probs` are not floating or `labels` not integers.

    Examples:
      >>> probs = jnp.array([[0.5, 0.5], [1.0, 0.0]])
      >>> print(brier(probs, jnp.array([0, 1])))
      1.25

    References:
      G. W. Brier, "Verification of forecasts expressed in terms of probability",
      Monthly Weather Review 78, 1950, equation 2. For two classes others use half of
      it.
    """
    return _brier(probs, labels)


def nll(probs: jax.Array, labels: jax.Array) -> jax.Array:
    """Negative log-likelihood: mean over examples of ``-ln p_label``.

    Args:
      probs: Probabilities ``[..., classes]``, floating; all leading axes are examples.
      labels: Classes in ``[0, classes)``, ``[...]``, integers.

    Returns:
      A float32 scalar in nats; infinite if the class of an example has probability 0;
      NaN where probabilities are NaN or do not sum to 1, or a label is not a class.

    Raises:
      ValueError: If the shapes do not fit or there is no example.
      TypeError: If `probs` are not floating or `labels` not integers.

    Examples:
      >>> probs = jnp.array([[0.5, 0.5], [1.0, 0.0]])
      >>> print(nll(probs, jnp.array([0, 0])))  # ln(2) / 2
      0.3465736

    References:
      I. J. Good, "Rational decisions", JRSS B 14, 1952.
    """
    return _nll(probs, labels)


def checked_probs(probs: jax.Array, labels: jax.Array) -> jax.Array:
    """Probabilities for a score, after checks of shapes, dtypes and sums.

    Args:
      probs: Probabilities ``[..., classes]``, floating.
      labels: Classes, ``[...]``, integers.

    Returns:
      `probs` in float32; all NaN in an example whose probabilities are negative or sum
      to something that is off 1 by more than 1 %.

    Raises:
      ValueError: If the shapes do not fit or there is no example.
      TypeError: If `probs` are not floating or `labels` not integers.

    Examples:
      >>> print(checked_probs(jnp.array([[0.5, 0.5], [2.0, -1.0]]), jnp.array([0, 1])))
      [[0.5 0.5]
       [nan nan]]
    """
    if probs.ndim < 1 or probs.shape[:-1] != labels.shape:
        raise ValueError(
            "labels must have the shape of probs without its last axis: "
            f"probs {probs.shape}, labels {labels.shape}"
        )
    if probs.size == 0:
        raise ValueError(f"there is no example, or no class: probs {probs.shape}")
    if not jnp.issubdtype(probs.dtype, jnp.floating):
        raise TypeError(f"probs must be floating, not {probs.dtype}")
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"labels must be integers, not {labels.dtype}")
    probs = probs.astype(jnp.float32)
    off = jnp.abs(probs.sum(axis=-1, keepdims=True) - 1)
    fine = (off <= _OFF) & (probs.min(axis=-1, keepdims=True) >= 0)
    return jnp.where(fine, probs, jnp.nan)


@jax.jit
def _brier(probs: jax.Array, labels: jax.Array) -> jax.Array:
    probs = checked_probs(probs, labels)
    classes = jnp.arange(probs.shape[-1], dtype=labels.dtype)
    truth = (labels[..., None] == classes).astype(probs.dtype)
    return _known(jnp.square(probs - truth).sum(-1), labels, probs).mean()


@jax.jit
def _nll(probs: jax.Array, labels: jax.Array) -> jax.Array:
    probs = checked_probs(probs, labels)
    own = jnp.take_along_axis(probs, labels[..., None], axis=-1, mode="clip")[..., 0]
    # A valid label of a probability that is 0 gives inf, as it should.
    return _known(-jnp.log(own), labels, probs).mean()


def _known(scores: jax.Array, labels: jax.Array, probs: jax.Array) -> jax.Array:
    """`scores`, NaN where the label is not a class."""
    return jnp.where((labels >= 0) & (labels < probs.shape[-1]), scores, jnp.nan)
