"""What a sweep says at every rate: accuracies and corruptions with their intervals."""

from typing import Any, NamedTuple

import numpy as np

from jeff.evaluate import (
    Interval,
    clopper_pearson,
    empirical_bernstein,
    proportion,
)
from jeff.sweep.campaigns.outcome import Outcome, check_overflow
from jeff.sweep.campaigns.per_image import PerImage, right_answers
from jeff.sweep.engine.result import SweepResult
from jeff.sweep.engine.stop import Stop
from jeff.sweep.statistics.device_means import mean_of_devices, share_of_devices
from jeff.sweep.statistics.new_images import accuracy_any_images
from jeff.sweep.statistics.stopping import look_level
from jeff.sweep.statistics.two_level import device_accuracy

__all__ = ["CurvePoint", "accuracy_curve"]


class CurvePoint(NamedTuple):
    """What faults of one rate did.

    Attributes:
      rate: The rate, as it was drawn.
      trials: Trials done.
      images: Images evaluated under faults, all trials together.
      accuracy: Mean accuracy of faulty trials on these images.
      device: Variance of the accuracy between devices, `s_dev^2`.
      image: Variance of an image on a device, `s_img^2`; without counts per image plus
        that between images, `s_test^2`, from which counts per device cannot tell it.
      sdc: Share of images whose answer changed (see `Outcome`).
      critical: Share of images whose right answer became wrong.
      nonfinite: Share of images without an answer.
      confidence_drop: Mean loss of probability of the golden answer.
      any_images: Mean accuracy, its interval for new devices on new images
        (`accuracy_any_images`); ``None`` without counts per image, and after a rigorous
        rule, as this one is not.
      test: Variance between images, whatever the device, `s_test^2`; ``None`` without
        counts per image.
    """

    rate: float
    trials: int
    images: int
    accuracy: Interval
    device: float
    image: float
    sdc: Interval
    critical: Interval
    nonfinite: float
    confidence_drop: float
    any_images: Interval | None = None
    test: float | None = None


def accuracy_curve(
    result: SweepResult,
    *,
    design: int = 0,
    independent: bool = False,
    level: float = 0.95,
    stop: Stop | None = None,
) -> tuple[CurvePoint, ...]:
    """The curve of a sweep whose statistics are an `Outcome`, or `PerImage` with one.

    A trial is a device, and images are nested in it: the accuracy is the mean over
    devices (`mean_of_devices`): Student's interval, or a bound where fewer than 10
    devices differ from the others. Shares of corrupted images are means over devices
    too (`share_of_devices`), unless every image had faults of its own: then all images
    are pooled, with the interval of a proportion.

    After a rule that stops, the level is that of its last look (`look_level`), so that
    all looks together have `level`. If the rule is rigorous
    (``method="empirical_bernstein"``) so are all intervals: means have that of
    `jeff.evaluate.empirical_bernstein`. Pooled images have Clopper and Pearson's.

    Args:
      result: The sweep.
      design: Number of the design.
      independent: Whether every image of every trial had faults of its own.
      level: Confidence level in (0, 1).
      stop: The rule that ended points early, whatever it looked at.

    Returns:
      A point per rate.

    Raises:
      ValueError: If a point has fewer than two trials, trials lack faults, or the level
        is out of range.

    Examples:
      >>> count = np.full((1, 1, 4), 10)
      >>> stats = Outcome(count, count - np.arange(4), np.arange(4)[None, None],
      ...                 np.arange(4)[None, None], 0 * count, 0.1 * count, 0 * count)
      >>> done = np.array([[4]])
      >>> result = SweepResult(stats, np.array([0.5]), done, None, {}, 0.0)
      >>> (point,) = accuracy_curve(result)
      >>> [round(x, 3) for x in point.accuracy[:3]], round(point.sdc.value, 3)
      ([0.85, 0.645, 1.0], 0.15)

    References:
      Few devices: `jeff.sweep.mean_of_devices`. Components of variance:
      `jeff.sweep.device_accuracy`. Looks: `jeff.sweep.look_level`.
    """
    points = []
    for i, rate in enumerate(result.rates):
        given = result.rate_point(design, i)
        stats: Outcome = given.total if isinstance(given, PerImage) else given
        check_overflow(stats)
        images, trials = int(np.sum(stats.images)), len(stats.images)
        per_trial = images // max(trials, 1)
        by_image = None
        if isinstance(given, PerImage):
            by_image = right_answers(given, per_trial).sum(0)
        found = device_accuracy(
            stats.correct, per_trial, per_image=by_image, level=level
        )
        of = _Intervals(independent, level)
        if stop is not None:
            look = -(-trials // int(result.settings["unit"]))
            rigorous = getattr(stop, "method", None) == "empirical_bernstein"
            of = _Intervals(independent, look_level(look, level=level), True, rigorous)
        points.append(
            CurvePoint(
                rate=float(rate),
                trials=trials,
                images=images,
                accuracy=of.mean(np.asarray(stats.correct) / per_trial),
                device=found.device,
                image=found.image,
                sdc=of.share(np.asarray(stats.changed), per_trial),
                critical=of.share(np.asarray(stats.critical), per_trial),
                nonfinite=float(np.sum(stats.nonfinite) / images),
                confidence_drop=float(np.sum(stats.confidence_drop) / images),
                any_images=of.any_images(np.asarray(stats.correct), by_image),
                test=found.test,
            )
        )
    return tuple(points)


class _Intervals(NamedTuple):
    """Which intervals a point has."""

    independent: bool
    level: float
    looked: bool = False
    rigorous: bool = False

    def mean(self, values: np.ndarray) -> Interval:
        """Of a mean over devices."""
        method = empirical_bernstein if self.rigorous else mean_of_devices
        return method(values, level=self.level)

    def any_images(self, correct: np.ndarray, by_image: Any) -> Interval | None:
        """Of the mean accuracy on new images."""
        if by_image is None or self.rigorous:
            return None
        return accuracy_any_images(correct, by_image, level=self.level)

    def share(self, counts: np.ndarray, images: int) -> Interval:
        """Of a share of images, from the counts of every trial."""
        if self.independent:
            # Wilson's interval misses rare events at the levels of late looks.
            method = clopper_pearson if self.looked else proportion
            return method(int(counts.sum()), images * len(counts), level=self.level)
        if self.rigorous:
            return self.mean(counts / images)
        return share_of_devices(counts / images, level=self.level)
