"""Whole units dealt out to devices, a few in flight at a time."""

import collections
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jeff import tree
from jeff.sweep.engine import machine_code
from jeff.sweep.engine.layout import Layout
from jeff.sweep.planning.arguments import Sweep
from jeff.sweep.planning.choose import Prepared
from jeff.sweep.planning.unit import compiled, compiler_options
from jeff.sweep.trial import Batch

__all__ = ["Devices"]


class Devices:
    """The devices of this process with the compiled unit and the data on each of them.

    Every unit runs whole on one device, by the same machine code; which device it is,
    and how many others are running, cannot change its bits.
    """

    def __init__(self, sweep: Sweep, prepared: Prepared, devices: Sequence[Any]):
        """Compiles if it was not done, and copies the program and the data.

        Args:
          sweep: The sweep.
          prepared: Its plan with what was made on the way.
          devices: Devices of this process.
        """
        plan, traced = prepared.plan, prepared.traced
        self._sweep, self._layout = sweep, layout_of(sweep, plan.unit)

        def compile_for(device: Any) -> Any:
            return compiled(sweep, traced, plan.group, plan.unit, device)

        first, *others = devices
        run = prepared.executable or compile_for(first)
        options = compiler_options(first)
        runs = [run, *machine_code.for_devices(run, others, options, compile_for)]
        data = _batched(sweep, traced.batches, traced.batch)
        self._workers = [
            _Worker(run, device, sweep, (traced.consts, data, plan.unit))
            for run, device in zip(runs, devices, strict=True)
        ]

    def compute(
        self, numbers: Iterable[int], chunk: int
    ) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """Computes units.

        Args:
          numbers: The units'.
          chunk: How many are in flight at a time; the oldest is waited for.

        Yields:
          The number of a unit and its statistics by name, ``[unit, ...]``, on the host;
          in the order given.
        """
        flight: collections.deque[tuple[int, Any]] = collections.deque()
        for i, number in enumerate(numbers):
            if len(flight) == chunk:
                yield _fetched(*flight.popleft())
            worker = self._workers[i % len(self._workers)]
            flight.append((number, worker.start(*self._layout.place(number))))
        while flight:
            yield _fetched(*flight.popleft())


def layout_of(sweep: Sweep, unit: int) -> Layout:
    """The units of a sweep.

    Args:
      sweep: The sweep.
      unit: Trials of a unit.

    Returns:
      Their layout.
    """
    return Layout(sweep.design_count, len(sweep.rates), sweep.trials, unit)


class _Worker:
    """One device: what a unit needs is there already, but its rate and its design."""

    def __init__(self, run, device, sweep, rest):
        consts, data, self._unit = rest
        self._run, self._device, self._designs = run, device, sweep.designs
        self._fixed = jax.device_put((consts, sweep.key), device)
        self._rates = jax.device_put(list(sweep.rates), device)
        self._data = jax.device_put(data, device)
        self._design: tuple[int, Any] = (-1, None)

    def start(self, design: int, rate: int, first: int) -> Any:
        """Starts a unit; the result is not waited for."""
        if self._design[0] != design:
            entry = jax.tree.map(lambda a: a[design], self._designs)
            self._design = design, jax.device_put(entry, self._device)
        numbers = np.arange(first, first + self._unit, dtype=np.int32)
        return self._run(
            *self._fixed, self._rates[rate], self._design[1],
            jax.device_put(numbers, self._device), self._data,
        )  # fmt: skip


def _batched(sweep: Sweep, batches: int, batch: int) -> Batch:
    """All examples, each array ``[batches, batch, ...]``, the last one repeated."""
    index = np.arange(batches * batch, dtype=np.int32)
    shape = (batches, batch)

    def cut(array):
        rows = array[np.minimum(index, sweep.examples - 1)]
        return rows.reshape((*shape, *array.shape[1:]))

    flags = index.reshape(shape), (index < sweep.examples).reshape(shape)
    return Batch(jax.tree.map(cut, sweep.data), *map(jnp.asarray, flags))


def _fetched(number: int, stats: Any) -> tuple[int, dict[str, np.ndarray]]:
    return number, tree.flatten(jax.device_get(stats))[0]
