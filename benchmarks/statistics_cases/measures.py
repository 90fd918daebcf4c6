"""Seeds of the cases, and what their campaigns gave as measures."""

import numpy as np

from jeff.evaluate import Measure, proportion, student_t

__all__ = ["average", "generator", "share"]


def generator(seed: int, case: str) -> np.random.Generator:
    """Random numbers of one case, which do not depend on what other cases there are.

    Args:
      seed: Of the record, at least 0.
      case: Its name.

    Returns:
      A generator.

    Examples:
      >>> a, b = (generator(0, case).random() for case in ("strata", "images"))
      >>> a == generator(0, "strata").random(), a == b
      (True, False)
    """
    return np.random.default_rng([seed, *case.encode()])


def share(name: str, campaigns: np.ndarray) -> Measure:
    """In which share of campaigns something was so, with the interval of 95 %.

    Args:
      name: Of the measure.
      campaigns: Whether it was, bool ``[campaigns]``.

    Returns:
      The measure.

    Examples:
      >>> found = share("held", np.arange(100) < 95)
      >>> found.value, found.trials, round(found.low, 3)
      (0.95, 100, 0.887)
    """
    found = proportion(int(np.sum(campaigns)), len(campaigns))
    return Measure(
        name, found.value, "fraction", low=found.low, high=found.high,
        trials=found.trials,
    )  # fmt: skip


def average(name: str, samples: np.ndarray, unit: str = "") -> Measure:
    """A mean over campaigns, with Student's interval of 95 %.

    Args:
      name: Of the measure.
      samples: A number of every campaign, ``[campaigns]``.
      unit: As in `jeff.evaluate.Measure`.

    Returns:
      The measure.

    Examples:
      >>> found = average("devices", np.array([1.0, 2.0, 3.0]))
      >>> found.value, round(found.low, 3), found.trials
      (2.0, -0.484, 3)
    """
    found = student_t(samples)
    return Measure(
        name, found.value, unit, low=found.low, high=found.high, trials=found.trials
    )
