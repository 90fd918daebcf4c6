"""So many injections of each kind of fault, in one sweep that compiles once."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jeff.evaluate import Interval, proportion
from jeff.prng import named_key
from jeff.sweep.engine.result import SweepResult
from jeff.sweep.engine.run import run
from jeff.sweep.planning.choose import EVALUATIONS
from jeff.sweep.planning.plan import Plan
from jeff.sweep.single_flips.injected import values_of
from jeff.sweep.trial import Trial

__all__ = ["Allocated", "part_of", "run_each_kind", "small_unit"]

_WASTE = 0.1  # of the injections, at most: those past a kind's number in its last unit


@dataclasses.dataclass(frozen=True)
class Allocated:
    """Stops every kind at its number of injections; a `Stop` for `Injected`.

    Attributes:
      trials: Injections of every kind.
      event: As for `values_of`.

    Examples:
      >>> rule = Allocated((2, 5), "changed")
      >>> [rule.decide(np.array([[kind, 0.0]] * 4), 1) for kind in (0, 1)]
      [True, False]
    """

    trials: tuple[int, ...]
    event: str | Callable[[Any], Any]

    def statistic(self, stats: Any) -> np.ndarray:
        """Kind and value of every trial.

        Args:
          stats: `Injected`, each array ``[n]``.

        Returns:
          float64 ``[n, 2]``.
        """
        values = values_of(stats.outcome, self.event)
        return np.stack([np.asarray(stats.kind, np.float64), values], 1)

    def decide(self, values: np.ndarray, look: int) -> bool:
        """Whether the kind has its number of trials.

        Args:
          values: Rows of `statistic`.
          look: Not looked at: the numbers are fixed beforehand.

        Returns:
          True to stop.
        """
        del look
        return len(values) >= self.trials[int(values[0, 0])]

    def interval(self, values: np.ndarray, look: int) -> Interval:
        """Rate of events of the kind.

        Args:
          values: Rows of `statistic`, with 0 or 1 for events.
          look: Not looked at.

        Returns:
          The rate and its interval of 95 %.
        """
        del look
        return proportion(int(values[:, 1].sum()), len(values))


def run_each_kind(
    trial: Trial,
    data: Any,
    key: jax.Array,
    name: str,
    trials: np.ndarray,
    event: str | Callable[[Any], Any],
    directory: str | os.PathLike[str] | None,
    settings: Mapping[str, Any],
) -> tuple[SweepResult, list[np.ndarray]]:
    """Injects a number of faults of each kind.

    Args:
      trial: From `given_kind_trial`.
      data: `Examples`.
      key: The campaign's key; this run draws from ``named_key(key, name)``.
      name: Of the run, and of its folder.
      trials: Injections of every kind, whole numbers ``[kinds]``, at least 1.
      event: As for `values_of`.
      directory: The campaign's folder, or ``None``.
      settings: Of `run`.

    Returns:
      The statistics (`Injected`, a design per kind), and for every kind the values of
      its first `trials`.

    Raises:
      ValueError: As `run` and `values_of`.
    """
    counts = [int(n) for n in trials]
    unit = settings.get("unit")
    if unit is None and not isinstance(settings.get("plan"), Plan):
        unit = small_unit(counts, len(jax.tree.leaves(data)[0]))
    result = run(
        trial,
        named_key(key, name),
        rates=[1.0],
        trials=max(counts),
        data=data,
        designs=np.arange(len(counts), dtype=np.int32),
        stop=Allocated(tuple(counts), event),
        directory=part_of(directory, name),
        **{**settings, "unit": unit},
    )
    values = [
        values_of(result.rate_point(kind, 0).outcome, event)[:count]
        for kind, count in enumerate(counts)
    ]
    return result, values


def small_unit(trials: list[int], examples: int) -> int:
    """Trials of a unit, so that few are done past the numbers asked for.

    Args:
      trials: Injections of every kind.
      examples: How many each is evaluated on.

    Returns:
      The largest power of two up to 64, and of about 4,096 evaluations, for which the
      last units of all kinds hold at most a tenth too much.

    Examples:
      >>> small_unit([64, 64], 10), small_unit([64, 5], 10), small_unit([64], 1024)
      (64, 8, 4)
    """
    most = max(1, min(64, EVALUATIONS // max(1, examples)))
    unit = 1 << (most.bit_length() - 1)
    while unit > 1 and sum(-n % unit for n in trials) > _WASTE * sum(trials):
        unit //= 2
    return unit


def part_of(directory: str | os.PathLike[str] | None, name: str) -> pathlib.Path | None:
    """The folder of one run of a campaign.

    Args:
      directory: The campaign's, or ``None``.
      name: Name of the run.

    Returns:
      The folder, or ``None``.

    Examples:
      >>> part_of("campaign", "pilot").as_posix(), part_of(None, "pilot")
      ('campaign/pilot', None)
    """
    return None if directory is None else pathlib.Path(directory) / name
