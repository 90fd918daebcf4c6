"""The units of a sweep by number, and the table that their statistics fill."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Layout", "Shapes", "Table"]

Shapes = Mapping[str, tuple[tuple[int, ...], np.dtype]]
"""Shape and dtype of each statistic of one trial, by name."""


class Layout(NamedTuple):
    """How many trials there are, and how they are cut into units.

    Block `b` of a point is its trials ``b * unit`` up to ``(b + 1) * unit``. Units are
    numbered block by block, and within a block design by design and rate by rate, so
    that every point has trials early.

    Attributes:
      designs: Number of designs, at least 1.
      rates: Number of rates.
      trials: Trials of each point.
      unit: Trials of a unit; those past `trials` are computed and dropped.

    Examples:
      >>> layout = Layout(designs=2, rates=3, trials=10, unit=4)
      >>> layout.points, layout.blocks, layout.units
      (6, 3, 18)
      >>> layout.place(17)  # design, rate and first trial
      (1, 2, 8)
    """

    designs: int
    rates: int
    trials: int
    unit: int

    @property
    def points(self) -> int:
        """Pairs of a design and a rate."""
        return self.designs * self.rates

    @property
    def blocks(self) -> int:
        """Units of each point."""
        return -(-self.trials // self.unit)

    @property
    def units(self) -> int:
        """Units of the sweep."""
        return self.blocks * self.points

    def place(self, number: int) -> tuple[int, int, int]:
        """Where a unit belongs.

        Args:
          number: The unit's.

        Returns:
          Its design, its rate and its first trial, as numbers.
        """
        block, point = divmod(number, self.points)
        return *divmod(point, self.rates), block * self.unit


class Table:
    """The statistics of all trials, filled unit by unit.

    Attributes:
      layout: The sweep's.
      shapes: What each trial gives.
      stats: By name, ``[designs, rates, trials, ...]``; zero where no unit was put.
      done: bool ``[units]``, which units were put.

    Examples:
      >>> table = Table(Layout(1, 2, 3, 2), {"hits": ((), np.dtype(np.int32))})
      >>> table.put(1, {"hits": np.array([7, 8])})
      >>> print(table.stats["hits"], table.trials_done)
      [[[0 0 0]
        [7 8 0]]] [[0 2]]
    """

    def __init__(self, layout: Layout, shapes: Shapes):
        """Makes an empty table.

        Args:
          layout: The sweep's.
          shapes: What each trial gives.
        """
        self.layout, self.shapes = layout, shapes
        leading = (layout.designs, layout.rates, layout.trials)
        self.stats = {
            name: np.zeros((*leading, *shape), dtype)
            for name, (shape, dtype) in shapes.items()
        }
        self.done = np.zeros(layout.units, bool)

    def put(self, number: int, stats: Mapping[str, Any]) -> None:
        """Takes in a unit.

        Args:
          number: The unit's.
          stats: By name, ``[unit, ...]``.
        """
        for name, rows in self.rows(number).items():
            rows[...] = stats[name][: len(rows)]
        self.done[number] = True

    def rows(self, number: int) -> dict[str, np.ndarray]:
        """Where a unit's statistics are in the table.

        Args:
          number: The unit's.

        Returns:
          Views by name, ``[trials of the unit, ...]``, none past the last trial.
        """
        design, rate, first = self.layout.place(number)
        last = first + self.layout.unit
        return {n: a[design, rate, first:last] for n, a in self.stats.items()}

    @property
    def trials_done(self) -> np.ndarray:
        """int64 ``[designs, rates]``, how many first trials of each point are there."""
        layout = self.layout
        blocks = self.done.reshape(layout.blocks, layout.designs, layout.rates)
        first = np.logical_and.accumulate(blocks, axis=0).sum(axis=0)
        return np.minimum(first * layout.unit, layout.trials)
