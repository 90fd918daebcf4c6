"""Top-k accuracy of a classifier."""

import jax
import jax.numpy as jnp

__all__ = ["accuracy", "correct"]


def correct(logits: jax.Array, labels: jax.Array, *, k: int = 1) -> jax.Array:
    """Whether each label is among the `k` largest logits.

    A label counts as found if fewer than `k` other classes score strictly higher, plus
    those that tie with it and come first. That is the order of `jax.numpy.argmax`, so
    ``k=1`` equals ``argmax(logits) == labels``. A NaN logit of the label's class is
    never correct.

    Args:
      logits: Scores, ``[..., classes]``, any real dtype.
      labels: Class indices in ``[0, classes)``, ``[...]``, integers.
      k: How many guesses each example has.

    Returns:
      Booleans, ``[...]``.

    Raises:
      ValueError: If the shapes do not fit or `k` is not in ``[1, classes]``.
      TypeError: If `labels` are not integers.

    Examples:
      >>> import jax.numpy as jnp
      >>> logits = jnp.array([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3]])
      >>> print(correct(logits, jnp.array([1, 2])))
      [ True False]
      >>> print(correct(logits, jnp.array([1, 2]), k=2))
      [ True  True]
    """
    if logits.ndim < 1 or logits.shape[:-1] != labels.shape:
        raise ValueError(
            "labels must have the shape of logits without its last axis: "
            f"logits {logits.shape}, labels {labels.shape}"
        )
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"labels must be integers, not {labels.dtype}")
    classes = logits.shape[-1]
    if not 1 <= k <= classes:
        raise ValueError(f"k must be in [1, {classes}] (the number of classes): {k=}")
    own = jnp.take_along_axis(logits, labels[..., None], axis=-1)
    index = jnp.arange(classes, dtype=labels.dtype)
    ahead = (logits > own) | ((logits == own) & (index < labels[..., None]))
    return (ahead.sum(-1) < k) & ~jnp.isnan(own[..., 0])


def accuracy(logits: jax.Array, labels: jax.Array, *, k: int = 1) -> jax.Array:
    """Fraction of labels among the `k` largest logits, as float32.

    Args:
      logits: Scores, ``[..., classes]``.
      labels: Class indices, ``[...]``, integers.
      k: How many guesses each example has.

    Returns:
      A scalar in [0, 1].

    Raises:
      ValueError: If the shapes do not fit or `k` is not in ``[1, classes]``.
      TypeError: If `labels` are not integers.

    Examples:
      >>> import jax.numpy as jnp
      >>> logits = jnp.array([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3]])
      >>> print(accuracy(logits, jnp.array([1, 2])))
      0.5
    """
    return correct(logits, labels, k=k).mean(dtype=jnp.float32)
