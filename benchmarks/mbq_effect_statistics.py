"""The tests of the effect study: pairs over seeds, pairs over images, Holm.

Losses come as ``[seeds, questions]``; a method without calibration has one row, which
stands for every seed.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from jeff.evaluate import Interval, student_t

__all__ = ["Comparison", "compare", "holm", "verdicts"]


class Comparison(NamedTuple):
    """How much more one method loses than another, in nats.

    Attributes:
      seeds: Over the calibration samples, the held-out questions given.
      images: Over the held-out images, the mean of the seeds given.
      p_seeds: Of a paired t test over the seeds.
      p_images: Of a t test over the images.
      p_wilcoxon: Of Wilcoxon's signed-rank test over the seeds.
      one_sign: Whether the difference has one sign in all seeds.
    """

    seeds: Interval
    images: Interval
    p_seeds: float
    p_images: float
    p_wilcoxon: float
    one_sign: bool


def compare(a: np.ndarray, b: np.ndarray, images: np.ndarray) -> Comparison:
    """Compares two methods on the same seeds and questions.

    Args:
      a: Losses, float ``[seeds, questions]``, or ``[1, questions]``.
      b: Losses of the other, likewise; not both of one row.
      images: int ``[questions]``, the image each question is about.

    Returns:
      `a` minus `b`.

    Raises:
      ValueError: If there are fewer than two seeds or two images.

    Examples:
      >>> a = np.array([[1.0, 2.0], [2.0, 4.0], [1.0, 3.0]])
      >>> found = compare(a, np.ones((1, 2)), np.array([0, 1]))
      >>> round(found.seeds.value, 3), found.one_sign
      (1.167, True)
    """
    difference = a - b
    by_seed = difference.mean(axis=1)
    by_question = difference.mean(axis=0)
    _, at = np.unique(images, return_inverse=True)
    by_image = np.bincount(at, by_question) / np.bincount(at)
    return Comparison(
        seeds=student_t(by_seed),
        images=student_t(by_image),
        p_seeds=_t_test(by_seed),
        p_images=_t_test(by_image),
        p_wilcoxon=float(stats.wilcoxon(by_seed).pvalue) if by_seed.any() else 1.0,
        one_sign=bool((by_seed > 0).all() or (by_seed < 0).all()),
    )


def _t_test(values: np.ndarray) -> float:
    """Two-sided p of a mean of zero; values that are all equal are no sample."""
    if np.ptp(values) == 0:
        return 1.0 if values[0] == 0 else 0.0
    return float(stats.ttest_1samp(values, 0.0).pvalue)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p values.

    Args:
      p: Of one family of tests.

    Returns:
      The adjusted ones, in the same order: the family-wise error is at most ``alpha``
      if those at most ``alpha`` are called significant.

    Examples:
      >>> holm([0.01, 0.04, 0.03])
      [0.03, 0.06, 0.06]

    References:
      S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian
      Journal of Statistics 6, 1979.
    """
    order = np.argsort(p, kind="stable")
    adjusted, largest = [0.0] * len(p), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = largest
    return adjusted


def verdicts(
    found: Sequence[Comparison], *, many_seeds: bool
) -> list[tuple[str, float]]:
    """What the protocol lets one say about each comparison of a family.

    With many seeds, Holm's p over the seeds must be below 0.05 and the interval over
    the images must leave out zero on the same side. With few, Holm's p over the images
    must be below 0.05 and all seeds must agree in sign.

    Args:
      found: The family.
      many_seeds: Which of the two rules holds.

    Returns:
      ``"less"``, ``"more"`` or ``"not shown"``, and the adjusted p, for each.
    """
    adjusted = holm([c.p_seeds if many_seeds else c.p_images for c in found])
    said = []
    for c, p in zip(found, adjusted, strict=True):
        side = "less" if c.seeds.value < 0 else "more"
        if many_seeds:
            agrees = c.images.high < 0 if side == "less" else c.images.low > 0
        else:
            agrees = c.one_sign
        said.append((side if p < 0.05 and agrees else "not shown", p))
    return said
