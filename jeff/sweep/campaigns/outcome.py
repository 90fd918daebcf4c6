"""What a fault did to the answers of a classifier: correct, changed, critical, lost."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["Outcome", "check_overflow", "each_outcome", "outcome"]


class Outcome(NamedTuple):
    """Sums over images: the sufficient statistics of a fault campaign.

    The answer of an image is its largest logit, of equal ones the first. An image with
    a NaN or infinite logit has no answer. A fault is

    - *changed*, a silent data corruption (SDC-1), if the answer is not the golden one,
      that of the same program without faults; no answer is a changed one;
    - *critical*, if it is changed and the golden answer was right: the fault made a
      right answer wrong. It needs no threshold, and it is what accuracy loses::

          golden correct - correct = critical - (wrong answers that became right)

    Attributes:
      images: int32, images evaluated.
      correct: int32, answers that are the label.
      changed: int32, answers that are not the golden one.
      critical: int32, changed answers whose golden one was the label.
      nonfinite: int32, images with a NaN or infinite logit.
      confidence_drop: float32, sum of golden minus faulty softmax probability of the
        golden answer; the faulty one is 0 where there is no answer.
      overflow: int32, images evaluated with faults missing, since the sampler's buffer
        was too short; 0 unless something is wrong, see `check_overflow`.

    Examples:
      >>> golden = jnp.array([[2.0, 0.0], [0.0, 2.0], [2.0, 0.0]])
      >>> faulty = jnp.array([[2.0, 0.0], [9.0, 2.0], [jnp.inf, 0.0]])
      >>> total = jax.jit(outcome)(faulty, golden, jnp.array([0, 1, 1]))
      >>> print({name: round(x.item(), 2) for name, x in total._asdict().items()})
      {'images': 3, 'correct': 1, 'changed': 2, 'critical': 1, 'nonfinite': 1,
       'confidence_drop': 1.76, 'overflow': 0}

    References:
      SDC-1: Li et al., "Understanding error propagation in deep learning neural
      network (DNN) accelerators and applications", SC 2017, section on SDC criteria.
      Critical: derivation, the identity above.
    """

    images: jax.Array
    correct: jax.Array
    changed: jax.Array
    critical: jax.Array
    nonfinite: jax.Array
    confidence_drop: jax.Array
    overflow: jax.Array


def each_outcome(
    logits: jax.Array,
    golden: jax.Array,
    labels: jax.Array,
    *,
    overflow: jax.Array | bool = False,
) -> Outcome:
    """What happened to every image.

    Args:
      logits: floating ``[batch, classes]``, with faults.
      golden: floating ``[batch, classes]``, without; finite (`golden_outputs`).
      labels: integers ``[batch]``.
      overflow: bool ``[]`` or ``[batch]``: faults are missing.

    Returns:
      An `Outcome` of arrays ``[batch]``; counts are 0 or 1.

    Raises:
      TypeError: If logits or golden outputs are not floating.
      ValueError: If shapes do not fit each other.

    Examples:
      >>> golden = np.array([[2, 0], [0, 2]], np.float32)
      >>> print(jax.jit(each_outcome)(golden[::-1], golden, np.array([0, 0])).critical)
      [1 0]
    """
    _check(logits, golden, labels)
    labels = labels.astype(jnp.int32)
    finite = jnp.isfinite(logits).all(-1)
    top = jnp.argmax(golden, -1)
    answer = jnp.where(finite, jnp.argmax(logits, -1), -1)
    right = top == labels
    changed = answer != top
    drop = _confidence(golden, top) - jnp.where(finite, _confidence(logits, top), 0)
    return Outcome(
        images=jnp.ones(labels.shape, jnp.int32),
        correct=(answer == labels).astype(jnp.int32),
        changed=changed.astype(jnp.int32),
        critical=(changed & right).astype(jnp.int32),
        nonfinite=(~finite).astype(jnp.int32),
        confidence_drop=drop,
        overflow=jnp.broadcast_to(overflow, labels.shape).astype(jnp.int32),
    )


def outcome(
    logits: jax.Array,
    golden: jax.Array,
    labels: jax.Array,
    valid: jax.Array | None = None,
    *,
    overflow: jax.Array | bool = False,
) -> Outcome:
    """What happened to the images of a batch, summed.

    Args:
      logits: floating ``[batch, classes]``, with faults.
      golden: floating ``[batch, classes]``, without; finite (`golden_outputs`).
      labels: integers ``[batch]``.
      valid: bool ``[batch]``, which images count; ``None``: all.
      overflow: bool ``[]`` or ``[batch]``: faults are missing.

    Returns:
      An `Outcome` of scalars; the example there shows it.

    Raises:
      TypeError: If logits or golden outputs are not floating.
      ValueError: If shapes do not fit each other.
    """
    each = each_outcome(logits, golden, labels, overflow=overflow)
    if valid is None:
        return jax.tree.map(jnp.sum, each)
    return jax.tree.map(lambda a: jnp.sum(jnp.where(valid, a, jnp.zeros_like(a))), each)


def check_overflow(stats: Outcome) -> None:
    """Refuses results of trials whose faults did not all fit the sampler's buffer.

    Args:
      stats: Of any shape ``[..., trials]``, on the host.

    Raises:
      ValueError: If there is one; the message says how many, and what to do.

    Examples:
      >>> counts = np.array([10, 10])
      >>> check_overflow(Outcome(*[counts] * 6, overflow=0 * counts))
      >>> check_overflow(Outcome(*[counts] * 7))
      Traceback (most recent call last):
      ValueError: 2 of 2 trials drew more faults than their buffer holds, so their
      counts are too low: give the fault model the largest rate of the sweep as max_rate
    """
    bad = int(np.count_nonzero(np.asarray(stats.overflow)))
    if bad:
        raise ValueError(
            f"{bad} of {np.size(stats.overflow)} trials drew more faults than their "
            "buffer holds, so their counts are too low: give the fault model the "
            "largest rate of the sweep as max_rate"
        )


def _confidence(logits, top):
    probability = jax.nn.softmax(logits.astype(jnp.float32), -1)
    return jnp.take_along_axis(probability, top[:, None], -1)[:, 0]


def _check(logits, golden, labels):
    for name, array in (("logits", logits), ("golden", golden)):
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise TypeError(f"{name} must be floating, got {array.dtype}")
        if array.ndim != 2:
            raise ValueError(f"{name} must be [batch, classes], got {array.shape}")
    if logits.shape != golden.shape:
        raise ValueError(f"logits are {logits.shape}, golden ones {golden.shape}")
    if labels.shape != logits.shape[:1]:
        raise ValueError(f"labels are {labels.shape} for logits of {logits.shape}")
