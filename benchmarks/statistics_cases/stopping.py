"""Campaigns that are looked at again and again: how often they err, when they stop.

Events of independent injections are counted by enumeration: a campaign is a walk of the
number of events, and the probability of every number is carried from look to look. So
these results have no sampling error. Campaigns over devices are simulated.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import special

from jeff.evaluate import Interval, Measure, wilson
from jeff.sweep import Margin
from statistics_cases.measures import average, generator, share

__all__ = [
    "DEVICES",
    "Devices",
    "looked_at",
    "missed_at_some_look",
    "stopped",
    "stopped_by_devices",
    "when_it_stops",
]

_UNIT, _LOOKS = 100, 30  # injections between two looks, looks; of `looked_at`
_MARGIN = 0.01  # of `stopped`
_NEGLIGIBLE = 1e-13  # probability of a number of events that is left out
_DEVICE_MARGIN, _DEVICES, _DEVICE_UNIT = 0.05, 1000, 64  # of `stopped_by_devices`


def looked_at(rate: float) -> list[Measure]:
    """Probability that no one of 30 looks misses the rate of events.

    Args:
      rate: Probability of an event.

    Returns:
      Of `Margin`, and of Wilson's interval of 95 % at every look.
    """
    rule = Margin(margin=_MARGIN, count="changed", out_of="images")
    kinds = {
        "margin": lambda count, look: rule.interval(_pooled(count, look, _UNIT), look),
        "wilson": lambda count, look: wilson(count, _UNIT * look),
    }
    return [
        Measure(
            f"looks_held.{name}.{rate:g}",
            1 - missed_at_some_look(rate, _UNIT, _LOOKS, interval),
            "fraction",
        )
        for name, interval in kinds.items()
    ]


def missed_at_some_look(
    rate: float, unit: int, looks: int, interval: Callable[[int, int], Interval]
) -> float:
    """Probability that some look's interval leaves out the rate.

    Args:
      rate: Probability of an event.
      unit: Injections between two looks.
      looks: Their number.
      interval: Of the number of events so far and of the look, 1, 2, ...

    Returns:
      The probability, up to what is negligible.

    Examples:
      One injection: an interval that is a point always misses a rate of one half.

      >>> def point(count, look):
      ...     return Interval(count / look, count / look, count / look, look)
      >>> missed_at_some_look(0.5, 1, 1, point)
      1.0
    """
    step, mass, missed = _step(rate, unit), np.ones(1), 0.0
    for look in range(1, looks + 1):
        mass = np.convolve(mass, step)
        for count in np.flatnonzero(mass > _NEGLIGIBLE):
            _, low, high, _ = interval(int(count), look)
            if not low <= rate <= high:
                missed += float(mass[count])
                mass[count] = 0.0
    return missed


def stopped(rate: float, unit: int) -> list[Measure]:
    """When `Margin` stops at one percent, and whether it is right there.

    Args:
      rate: Probability of an event.
      unit: Injections between two looks.

    Returns:
      Mean number of injections, and probability that the interval holds the rate.
    """
    rule = Margin(margin=_MARGIN, count="changed", out_of="images")
    mean, missed = when_it_stops(rate, unit, rule)
    return [
        Measure(f"stop_injections.{unit}.{rate:g}", mean),
        Measure(f"stop_held.{unit}.{rate:g}", 1 - missed, "fraction"),
    ]


def when_it_stops(rate: float, unit: int, rule: Margin) -> tuple[float, float]:
    """Mean injections at which a rule stops, and probability that it misses there.

    Args:
      rate: Probability of an event.
      unit: Injections between two looks.
      rule: Of pooled counts.

    Returns:
      Both, up to what is negligible.

    Examples:
      >>> mean, missed = when_it_stops(0.01, 500, Margin(margin=0.02, count="changed"))
      >>> f"{mean:.0f} {missed:.4f}"
      '503 0.0076'
    """
    step, mass, mean, missed, look = _step(rate, unit), np.ones(1), 0.0, 0.0, 0
    while mass.any():
        look += 1
        mass = np.convolve(mass, step)
        mass[mass <= _NEGLIGIBLE] = 0.0
        for count in np.flatnonzero(mass):
            values = _pooled(int(count), look, unit)
            if rule.decide(values, look):
                _, low, high, _ = rule.interval(values, look)
                mean += float(mass[count]) * unit * look
                missed += float(mass[count]) * (not low <= rate <= high)
                mass[count] = 0.0
    return mean, missed


class Devices(NamedTuple):
    """Faulty devices of which some fail.

    Attributes:
      accuracy: Of ordinary devices, their mean.
      spread: Their standard deviation; they are normal.
      share: Of the devices that fail.
      failed: Accuracy of those.
    """

    accuracy: float
    spread: float
    share: float
    failed: float

    @property
    def mean(self) -> float:
        """Mean accuracy of all devices."""
        return (1 - self.share) * self.accuracy + self.share * self.failed

    def draw(self, rng: np.random.Generator, *shape: int) -> np.ndarray:
        """Accuracies of devices, of a shape, in [0, 1]."""
        ordinary = rng.normal(self.accuracy, self.spread, shape)
        fails = rng.random(shape) < self.share
        return np.where(fails, self.failed, ordinary).clip(0, 1)


DEVICES = {
    "normal": Devices(0.8, 0.03, 0.0, 0.0),
    "one_in_ten": Devices(0.9, 0.0, 0.1, 0.45),
    "one_in_a_hundred": Devices(0.9, 0.0, 0.01, 0.45),
    "rare_among_different": Devices(0.9, 0.003, 0.01, 0.1),
}
"""Kinds of devices of `stopped_by_devices`."""


def stopped_by_devices(
    method: str, kind: str, *, seed: int, campaigns: int
) -> list[Measure]:
    """How often a rule over devices errs where it stops, and how many devices it takes.

    Looks are every 64 devices; after 1,000 a campaign ends.

    Args:
      method: Of `Margin`.
      kind: One of `DEVICES`.
      seed: Of the record.
      campaigns: Their number.

    Returns:
      The share of campaigns that miss, and the mean number of devices.
    """
    devices = DEVICES[kind]
    rule = Margin(margin=_DEVICE_MARGIN, count="correct", method=method)
    rng = generator(seed, f"devices.{kind}")  # the same devices for every method
    missed, used = np.zeros(campaigns, bool), np.zeros(campaigns)
    for i in range(campaigns):
        row = devices.draw(rng, _DEVICES)
        values = np.stack([row, np.ones_like(row)], axis=1)
        ends = [*range(_DEVICE_UNIT, _DEVICES, _DEVICE_UNIT), _DEVICES]
        for look, end in enumerate(ends, 1):
            if end == _DEVICES or rule.decide(values[:end], look):
                _, low, high, _ = rule.interval(values[:end], look)
                missed[i], used[i] = not low <= devices.mean <= high, end
                break
    return [
        share(f"stop_missed.{method}.{kind}", missed),
        average(f"stop_devices.{method}.{kind}", used),
    ]


def _step(rate: float, unit: int) -> np.ndarray:
    """Probabilities of 0, 1, ... events among `unit` injections."""
    k = np.arange(unit + 1)
    choose = special.gammaln(unit + 1) - special.gammaln(k + 1)
    choose -= special.gammaln(unit - k + 1)
    return np.exp(choose + special.xlogy(k, rate) + special.xlog1py(unit - k, -rate))


def _pooled(count: int, look: int, unit: int) -> np.ndarray:
    """What `Margin` is given: all injections so far as one trial."""
    return np.array([[count, unit * look]])
