"""A sweep's folder read back, without the program that was swept."""

import os
from typing import Any

import jax
import numpy as np

from jeff import tree
from jeff.sweep.engine.folder import SETTINGS_FILE, SweepFolder
from jeff.sweep.engine.layout import Layout, Table
from jeff.sweep.engine.result import SweepResult

__all__ = ["read_sweep"]


def read_sweep(directory: str | os.PathLike[str], *, like: Any = None) -> SweepResult:
    """The result that a folder holds, finished or not.

    Args:
      directory: The `directory` of a sweep.
      like: A pytree of the structure that `Trial.evaluate` returns, with anything at
        the leaves; ``None``: the statistics are a dictionary by name.

    Returns:
      The result; `plan` is ``None``. Trials that are not there, and those after them,
      are not among `trials_done`.

    Raises:
      ValueError: If it is no such folder, has no finished unit, a file is damaged, or
        `like` has other leaves than the statistics.

    Examples:
      >>> import tempfile
      >>> import jax.numpy as jnp
      >>> from jeff.sweep import Trial, run
      >>> trial = Trial(lambda key, rate, design: rate,
      ...     lambda rate, batch: {"sum": jnp.where(batch.valid, rate, 0.0).sum()})
      >>> folder = tempfile.mkdtemp()
      >>> made = run(trial, jax.random.key(0), rates=[0.5], trials=2, data=jnp.ones(3),
      ...     plan="map", directory=folder)
      >>> print(read_sweep(folder).stats["sum"])
      [[[1.5 1.5]]]
    """
    folder = SweepFolder(directory)
    settings = folder.settings()
    if settings is None:
        raise ValueError(f"{str(directory)!r} holds no sweep: no {SETTINGS_FILE} in it")
    names = ("designs", "trials", "unit", "rates", "x64")
    missing = [name for name in names if name not in settings]
    if missing:
        raise ValueError(f"{SETTINGS_FILE} in {str(directory)!r} lacks {missing[0]!r}")
    numbers = folder.finished()
    if not numbers:
        raise ValueError(f"the sweep in {str(directory)!r} has no finished unit yet")
    unit = settings["unit"]
    first = folder.load(numbers[0], None, unit=unit)
    shapes = {n: (a.shape[1:], a.dtype) for n, a in first.items()}
    rates = np.asarray(settings["rates"], np.float64 if settings["x64"] else np.float32)
    layout = Layout(settings["designs"], len(rates), settings["trials"], unit)
    table = Table(layout, shapes)
    for number in numbers:
        table.put(number, folder.load(number, shapes, unit=unit))
    stats = table.stats if like is None else _shaped(table.stats, like)
    return SweepResult(stats, rates, table.trials_done, None, settings, 0.0)


def _shaped(stats: dict[str, np.ndarray], like: Any) -> Any:
    names, structure = tree.flatten(like)
    if set(names) != set(stats):
        raise ValueError(
            f"like has leaves {sorted(names)}, the statistics are {sorted(stats)}"
        )
    return jax.tree.unflatten(structure, [stats[name] for name in names])
