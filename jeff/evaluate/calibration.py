"""Calibration: whether a classifier is right as often as it is confident.

Probabilities ``[..., classes]`` of an example must sum to 1 within 1 %. Others, such as
logits, make a result NaN: under ``jit`` a value cannot raise, and a wrong number would
look right.
"""

import functools
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jeff.evaluate.accuracy import correct
from jeff.evaluate.figure import Figure, Series
from jeff.evaluate.interval import wilson
from jeff.evaluate.proper_scores import checked_probs

__all__ = ["Mass", "Reliability", "ace", "ece", "reliability", "reliability_figure"]

Mass = Literal["width", "equal"]


class Reliability(NamedTuple):
    """Confidence and accuracy by bins of confidence.

    Attributes:
      count: int32 ``[bins]``, examples in each bin.
      correct: int32 ``[bins]``, those that were predicted right.
      confidence: float32 ``[bins]``, mean confidence; 0 in an empty bin.
      accuracy: float32 ``[bins]``, ``correct / count``; 0 in an empty bin.

    Examples:
      >>> probs = jnp.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
      >>> bins = reliability(probs, jnp.array([0, 1, 1]), bins=2)
      >>> print(bins.count, bins.correct)
      [0 3] [0 2]
    """

    count: jax.Array
    correct: jax.Array
    confidence: jax.Array
    accuracy: jax.Array


def reliability(
    probs: jax.Array, labels: jax.Array, *, bins: int = 15, mass: Mass = "width"
) -> Reliability:
    """Sorts examples into bins by the probability of the class they are given.

    Bins of equal width are ``(i / bins, (i + 1) / bins]``. Bins of equal mass hold as
    many examples as can be, ``r`` being how many are less confident than an example:
    its bin is ``floor(r * bins / examples)``. Equally confident examples thus share a
    bin, and the order of the examples does not matter; with many ties, bins differ in
    size and some are empty.

    Args:
      probs: Probabilities ``[..., classes]``, floating; all leading axes are examples.
      labels: Classes in ``[0, classes)``, ``[...]``, integers.
      bins: How many.
      mass: ``"width"``, or ``"equal"`` for adaptive bins.

    Returns:
      The bins. Where probabilities are none or NaN, a confidence is NaN.

    Raises:
      ValueError: If the shapes do not fit, there is no example, or `bins` or `mass` is
        not possible.
      TypeError: If `probs` are not floating or `labels` not integers.

    Examples:
      >>> probs = jnp.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.7, 0.3]])
      >>> found = reliability(probs, jnp.array([0, 1, 1, 0]), bins=2, mass="equal")
      >>> print(found.count, found.accuracy)
      [2 2] [0.5 1. ]

    References:
      C. Guo et al., "On calibration of modern neural networks", ICML 2017
      (arXiv 1706.04599), equations 1 to 3; J. Nixon et al., "Measuring calibration in
      deep learning", 2019 (arXiv 1904.01685), section on adaptive bins. Deviation:
      neither says what becomes of ties.
    """
    if mass not in get_args(Mass):
        raise ValueError(f"mass must be one of {get_args(Mass)}: {mass!r}")
    return _reliability(probs, labels, bins=_checked(bins, labels.size), mass=mass)


def ece(
    probs: jax.Array, labels: jax.Array, *, bins: int = 15, mass: Mass = "width"
) -> jax.Array:
    """Expected calibration error: how far accuracy is from confidence.

    ``sum_b count_b / examples * |accuracy_b - confidence_b|`` over the bins of
    `reliability`. A finite sample makes it positive for a perfectly calibrated
    classifier too, the more so the more bins: compare only values of as many examples
    and bins.

    Args:
      probs: Probabilities ``[..., classes]``, floating; all leading axes are examples.
      labels: Classes in ``[0, classes)``, ``[...]``, integers.
      bins: How many.
      mass: ``"width"``, or ``"equal"`` for adaptive bins.

    Returns:
      A float32 scalar in [0, 1]; NaN where probabilities are none or NaN.

    Raises:
      ValueError: If the shapes do not fit, there is no example, or `bins` or `mass` is
        not possible.
      TypeError: If `probs` are not floating or `labels` not integers.

    Examples:
      Two examples at 0.75, one of them right, and two at 1, both right:

      >>> probs = jnp.array([[0.75, 0.25], [0.25, 0.75], [1.0, 0.0], [0.0, 1.0]])
      >>> print(ece(probs, jnp.array([0, 0, 0, 1])))
      0.125

    References:
      M. P. Naeini et al., "Obtaining well calibrated probabilities using Bayesian
      binning", AAAI 2015; Guo et al. 2017 (arXiv 1706.04599), equation 3.
    """
    found = reliability(probs, labels, bins=bins, mass=mass)
    return _gap(found) / labels.size


def ace(probs: jax.Array, labels: jax.Array, *, bins: int = 15) -> jax.Array:
    """Adaptive calibration error: of every class's probability, in bins of equal mass.

    ``1 / classes * sum_k sum_b count_kb / examples * |accuracy_kb - confidence_kb|``,
    where ``accuracy_kb`` is the share of class ``k`` among the examples of bin ``b`` of
    the probabilities of ``k``. Unlike `ece` it sees the classes that are not predicted.

    Args:
      probs: Probabilities ``[..., classes]``, floating; all leading axes are examples.
      labels: Classes in ``[0, classes)``, ``[...]``, integers.
      bins: How many for each class.

    Returns:
      A float32 scalar in [0, 1]; NaN where probabilities are none or NaN.

    Raises:
      ValueError: If the shapes do not fit, there is no example, or `bins` < 1.
      TypeError: If `probs` are not floating or `labels` not integers.

    Examples:
      >>> probs = jnp.array([[0.75, 0.25], [0.75, 0.25]])
      >>> print(ace(probs, jnp.array([0, 1])))
      0.25

    References:
      Nixon et al. 2019 (arXiv 1904.01685), adaptive calibration error. Deviation: bins
      are weighted by their examples instead of equally, which differs only where ties
      or remainders make their sizes differ.
    """
    return _ace(probs, labels, bins=_checked(bins, labels.size))


def reliability_figure(found: Reliability, *, title: str, name: str) -> Figure:
    """The reliability diagram: accuracy over confidence, with Wilson's intervals.

    Args:
      found: Bins, from `reliability`, outside ``jit``.
      title: Heading.
      name: Entry in the legend.

    Returns:
      Lines: the diagonal, and the bins that have examples.

    Raises:
      ValueError: If there is no example, or a confidence is not finite.

    Examples:
      >>> probs = jnp.array([[0.75, 0.25], [0.25, 0.75], [1.0, 0.0], [0.0, 1.0]])
      >>> found = reliability(probs, jnp.array([0, 0, 0, 1]))
      >>> figure = reliability_figure(found, title="Calibration", name="digits")
      >>> figure.series[1].x, figure.series[1].y
      ((0.75, 1.0), (0.5, 1.0))
    """
    rows = zip(*(np.asarray(field).tolist() for field in found), strict=True)
    filled = [row for row in rows if row[0]]
    if not filled:
        raise ValueError("found has no example in any bin")
    inside = [wilson(right, count) for count, right, _, _ in filled]
    return Figure(
        kind="lines",
        title=title,
        x_label="mean confidence",
        y_label="accuracy (fraction)",
        series=(
            Series("calibrated", (0.0, 1.0), (0.0, 1.0)),
            Series(
                name,
                tuple(confidence for _, _, confidence, _ in filled),
                tuple(interval.value for interval in inside),
                tuple(interval.low for interval in inside),
                tuple(interval.high for interval in inside),
            ),
        ),
        caption=f"{sum(row[0] for row in filled)} examples; 95 % Wilson intervals.",
    )


@functools.partial(jax.jit, static_argnames=("bins", "mass"))
def _reliability(
    probs: jax.Array, labels: jax.Array, *, bins: int, mass: Mass
) -> Reliability:
    probs = checked_probs(probs, labels)
    right = correct(probs, labels).reshape(-1)
    return _binned(probs.max(axis=-1).reshape(-1), right, bins=bins, mass=mass)


@functools.partial(jax.jit, static_argnames="bins")
def _ace(probs: jax.Array, labels: jax.Array, *, bins: int) -> jax.Array:
    probs = checked_probs(probs, labels)
    classes = probs.shape[-1]
    probs, labels = probs.reshape(-1, classes), labels.reshape(-1)
    own = labels[:, None] == jnp.arange(classes, dtype=labels.dtype)
    one_class = functools.partial(_binned, bins=bins, mass="equal")
    return _gap(jax.vmap(one_class, in_axes=1)(probs, own)).mean() / labels.size


def _binned(
    confidence: jax.Array, right: jax.Array, *, bins: int, mass: Mass
) -> Reliability:
    """Bins of ``[examples]`` confidences and booleans."""
    if mass == "width":
        edges = np.arange(1, bins, dtype=np.float32) / np.float32(bins)
        bin_of = jnp.searchsorted(edges, confidence)  # edges below the confidence
    else:
        below = jnp.searchsorted(jnp.sort(confidence), confidence)
        bin_of = jnp.minimum(below, confidence.size - 1) * bins // confidence.size

    def total(x):
        return jnp.zeros(bins, x.dtype).at[bin_of].add(x, mode="promise_in_bounds")

    count = total(jnp.ones(bin_of.shape, jnp.int32))
    hits = total(right.astype(jnp.int32))
    divisor = jnp.maximum(count, 1).astype(jnp.float32)
    means = total(confidence) / divisor, hits.astype(jnp.float32) / divisor
    return Reliability(count, hits, *means)


def _gap(found: Reliability) -> jax.Array:
    """``sum_b count_b |accuracy_b - confidence_b|`` over the last axis."""
    weight = found.count.astype(jnp.float32)
    return (weight * jnp.abs(found.accuracy - found.confidence)).sum(-1)


def _checked(bins: int, examples: int) -> int:
    if isinstance(bins, bool) or not isinstance(bins, int) or bins < 1:
        raise ValueError(f"bins must be a positive integer: {bins!r}")
    if bins * examples >= 2**31:  # ranks times bins are int32
        raise ValueError(f"bins * examples must be below 2^31: {bins=}, {examples=}")
    return bins
