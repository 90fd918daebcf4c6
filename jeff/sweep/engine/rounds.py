"""Fills the table of a sweep: from its folder, its devices and other processes."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jeff.evaluate import Progress
from jeff.sweep.engine.execute import Devices
from jeff.sweep.engine.folder import SweepFolder
from jeff.sweep.engine.layout import Table
from jeff.sweep.engine.processes import share
from jeff.sweep.engine.stop import Stop

__all__ = ["Work", "fill"]


class Work:
    """What is to be done, and with what.

    Attributes:
      table: Where statistics go.
      structure: The tree that a trial's statistics make.
      folder: Where finished units are kept, or ``None``.
      chunk: Units in flight at a time.
      progress: Told about every unit of this process.
    """

    def __init__(
        self,
        *,
        table: Table,
        structure: Any,
        folder: SweepFolder | None,
        make_devices: Callable[[], Devices],
        chunk: int,
        progress: Progress,
    ):
        """Takes all that is needed; `make_devices` is called when a unit is missing."""
        self.table, self.structure, self.folder = table, structure, folder
        self.chunk, self.progress = chunk, progress
        self._make_devices = make_devices

    @functools.cached_property
    def devices(self) -> Devices:
        """The devices, with everything on them."""
        return self._make_devices()

    @functools.cached_property
    def stored(self) -> frozenset[int]:
        """Numbers of the units that the folder had at first."""
        return frozenset(() if self.folder is None else self.folder.finished())

    def tree(self, stats: Mapping[str, np.ndarray]) -> Any:
        """Statistics by name as the tree that a trial returns."""
        return jax.tree.unflatten(self.structure, list(stats.values()))


def fill(work: Work, stop: Stop | None) -> None:
    """Does all units, or round after round those of the points still open.

    Args:
      work: What is to be done; its table is filled.
      stop: The rule that closes points, or ``None``.

    Raises:
      OSError: If a unit cannot be kept.
      ValueError: If a stored unit is damaged.
      RuntimeError: If another process failed.
    """
    layout = work.table.layout
    if stop is None:
        _do(work, range(layout.units), "sweep")
        return
    still_open = list(range(layout.points))
    for block in range(layout.blocks):
        numbers = [block * layout.points + point for point in still_open]
        _do(work, numbers, f"round {block + 1} of at most {layout.blocks}")
        still_open = [
            point
            for point in still_open
            if not _decided(work, stop, *divmod(point, layout.rates), block + 1)
        ]
        if not still_open:
            return


def _decided(work: Work, stop: Stop, design: int, rate: int, look: int) -> bool:
    layout = work.table.layout
    done = min(look * layout.unit, layout.trials)  # it was open in every round
    stats = {n: a[design, rate, :done] for n, a in work.table.stats.items()}
    return bool(stop.decide(stop.statistic(work.tree(stats)), look))


def _do(work: Work, numbers: Sequence[int], name: str) -> None:
    """Does some units: this process's share, then takes what the others did."""
    index, count = jax.process_index(), jax.process_count()
    own = numbers[index::count]
    work.progress.stage(name, len(own))
    if count == 1:
        _do_own(work, own)
        return

    def part():
        _do_own(work, own)
        arrays = (a for n in own for a in work.table.rows(n).values())
        return b"".join(a.tobytes() for a in arrays)

    for process, data in enumerate(share(part)):
        _take(work.table, numbers[process::count], data)


def _do_own(work: Work, own: Sequence[int]) -> None:
    """Reads or computes units."""
    missing = []
    for number in own:
        if work.folder is None or number not in work.stored:
            missing.append(number)
            continue
        shapes, unit = work.table.shapes, work.table.layout.unit
        work.table.put(number, work.folder.load(number, shapes, unit=unit))
        work.progress.advance()
    if missing:
        for number, stats in work.devices.compute(missing, work.chunk):
            if work.folder is not None:
                work.folder.save(number, stats)
            work.table.put(number, stats)
            work.progress.advance()


def _take(table: Table, numbers: Sequence[int], data: bytes) -> None:
    """Puts what a process said of its units into the table."""
    start = 0
    for number in numbers:
        stats = {}
        for name, rows in table.rows(number).items():
            end = start + rows.nbytes
            flat = np.frombuffer(data[start:end], rows.dtype)
            stats[name], start = flat.reshape(rows.shape), end
        table.put(number, stats)
