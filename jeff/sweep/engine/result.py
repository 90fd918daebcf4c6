"""What a sweep gives: the statistics of every trial, on the host."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jeff.sweep.planning.plan import Plan

__all__ = ["SweepResult"]


class SweepResult(NamedTuple):
    """The statistics of every trial at every point (design and rate).

    Nothing is summed over trials: what a trial gave does not depend on the others.

    Attributes:
      stats: The pytree that `Trial.evaluate` returns, each array a NumPy array
        ``[designs, rates, trials, ...]``; zero for trials that were not done. Without
        `designs` the first axis has one entry.
      rates: float ``[rates]``, as the trials got them.
      trials_done: int64 ``[designs, rates]``, the trials done at each point: the first
        ones. Fewer than `trials` only where a stopping rule ended a point, or a folder
        of an unfinished sweep was read.
      plan: How it was computed; ``None`` if it was read from a folder.
      settings: All that the numbers depend on, JSON values by name.
      seconds: Time that the call took.

    Examples:
      >>> stats = {"correct": np.arange(8).reshape(1, 2, 4)}
      >>> done = np.array([[4, 3]])
      >>> result = SweepResult(stats, np.array([0.0, 0.1]), done, None, {}, 0.0)
      >>> print(result.rate_point(0, 1)["correct"])
      [4 5 6]
    """

    stats: Any
    rates: np.ndarray
    trials_done: np.ndarray
    plan: Plan | None
    settings: Mapping[str, Any]
    seconds: float

    def rate_point(self, design: int, rate_index: int) -> Any:
        """Statistics of the trials done at one point.

        Args:
          design: Number of the design; 0 without designs.
          rate_index: Number of the rate.

        Returns:
          The pytree, each array ``[trials done, ...]``.

        Raises:
          IndexError: If there is no such point.
        """
        designs, rates = self.trials_done.shape
        if not (0 <= design < designs and 0 <= rate_index < rates):
            raise IndexError(
                f"there is no point (design={design}, rate_index={rate_index}) in a "
                f"sweep of {designs} designs and {rates} rates"
            )
        done = int(self.trials_done[design, rate_index])
        return jax.tree.map(lambda a: a[design, rate_index, :done], self.stats)
