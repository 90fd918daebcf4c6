"""What a sweep asks of a stopping rule."""

from typing import Any, Protocol

import numpy as np

from jeff.evaluate import Interval

__all__ = ["Stop"]


class Stop(Protocol):
    """A rule that a sweep asks between rounds whether a point needs more trials.

    It sees the trials of one point (design, rate) in their order; the sweep calls
    ``decide(statistic(stats), look)`` with ``look = 1, 2, ...`` and runs no more trials
    of this point after the first true answer.
    """

    def statistic(self, stats: Any) -> np.ndarray:
        """What the rule needs of every trial.

        Args:
          stats: The trials' results, a pytree of arrays ``[n, ...]``.

        Returns:
          float64 ``[n, ...]``, one row per trial.
        """
        ...

    def decide(self, values: np.ndarray, look: int) -> bool:
        """Whether to stop.

        Args:
          values: Rows of `statistic` of all trials so far.
          look: How many times the rule has been asked, this one included.

        Returns:
          True to stop.
        """
        ...

    def interval(self, values: np.ndarray, look: int) -> Interval:
        """What can be said at this look.

        Args:
          values: Rows of `statistic` of all trials so far.
          look: How many times the rule has been asked, this one included.

        Returns:
          The estimate with its interval.
        """
        ...
