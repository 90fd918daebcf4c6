"""Measured settings of the kernel: found, checked, kept per kind of device."""

import dataclasses
import functools
import json
import math
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pallas_kernels.dequant_matmul.config import Config, Shapes, candidates, heuristic

__all__ = ["autotune", "key_of", "lookup", "read_table", "table_path", "write_table"]

TABLES = "JEFF_DEQUANT_MATMUL_TABLES"
"""Environment variable: a folder of tables that go before those of the package."""


def lookup(shapes: Shapes, dtype: Any) -> Config | None:
    """Settings measured on this kind of device, if there are any that fit.

    Args:
      shapes: The product.
      dtype: Of x.

    Returns:
      The settings, or ``None`` for the heuristic's.
    """
    device = jax.devices()[0].device_kind
    entry = _cached(device, os.environ.get(TABLES)).get(key_of(shapes, dtype))
    if entry is None:
        return None
    config = Config(**entry["config"])
    return config if config.fits(shapes) else None


def key_of(shapes: Shapes, dtype: Any) -> str:
    """The name of a product in a table; rows count as the next power of two.

    Args:
      shapes: The product.
      dtype: Of x.

    Examples:
      >>> shapes = Shapes(stack=1, rows=3, size=3584, columns=18944, bits=3,
      ...                 group_size=128, scale_bytes=3)
      >>> key_of(shapes, "bfloat16")
      'w3 g128 3584x18944 M4 L1 bfloat16 scale3'
    """
    rows = 2 ** math.ceil(math.log2(shapes.rows))
    return (
        f"w{shapes.bits} g{shapes.group_size} {shapes.size}x{shapes.columns} M{rows} "
        f"L{shapes.stack} {jnp.dtype(dtype).name} scale{shapes.scale_bytes}"
    )


def autotune(
    shapes: Shapes,
    dtype: Any,
    run: Callable[[Config], jax.Array],
    want: jax.Array,
    *,
    tolerance: float,
    measure: Callable[[Config], float],
    configs: Iterable[Config] | None = None,
) -> dict[str, Any]:
    """The fastest settings among those whose result is right.

    A candidate that fails to compile or to run is passed over; a wrong or non-finite
    one is never timed.

    Args:
      shapes: The product.
      dtype: Of x.
      run: The product with given settings.
      want: What it must be.
      tolerance: Largest error allowed, as a fraction of the largest entry of `want`.
      measure: Seconds that the product takes with given settings.
      configs: Settings to try; ``None`` for the heuristic's and all `candidates`.

    Returns:
      An entry of a table: ``config``, ``seconds``, ``error``, ``tried`` and ``failed``.

    Raises:
      RuntimeError: If no candidate gives a right result.
    """
    if configs is None:
        configs = dict.fromkeys([heuristic(shapes), *candidates(shapes)])
    exact = np.asarray(want, np.float64)
    best, tried, failed = None, 0, 0
    for config in configs:
        tried += 1
        try:
            got = np.asarray(run(config), np.float64)
        except Exception:  # a compiler's error can be of any type
            failed += 1
            continue
        error = float(np.max(np.abs(got - exact)) / np.max(np.abs(exact)))
        if not error <= tolerance:  # also where it is no number
            failed += 1
            continue
        seconds = measure(config)
        if best is None or seconds < best["seconds"]:
            best = {
                "config": dataclasses.asdict(config),
                "seconds": seconds,
                "error": error,
            }
    if best is None:
        raise RuntimeError(
            f"none of {tried} settings gives a right {key_of(shapes, dtype)}"
        )
    return {**best, "tried": tried, "failed": failed}


def table_path(device_kind: str, folder: str | os.PathLike | None = None):
    """The file of a kind of device.

    Args:
      device_kind: As JAX names it.
      folder: Where tables are; ``None`` for those of the package.

    Examples:
      >>> table_path("NVIDIA H200", "tables").as_posix()
      'tables/nvidia_h200.json'
    """
    name = "".join(c if c.isalnum() else "_" for c in device_kind.lower())
    if folder is None:
        folder = pathlib.Path(__file__).parent / "tables"
    return pathlib.Path(folder) / f"{name}.json"


def read_table(path: str | os.PathLike) -> dict[str, Any]:
    """The entries of a table, each checked.

    Args:
      path: A JSON file; one that is not there has no entries.

    Returns:
      Entries by key.

    Raises:
      ValueError: If the file is no table.
    """
    path = pathlib.Path(path)
    if not path.exists():
        return {}
    try:
        table = json.loads(path.read_text())
        for entry in table.values():
            Config(**entry["config"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is no table of settings: {error}") from error
    return table


def write_table(path: str | os.PathLike, entries: Mapping[str, Any]) -> None:
    """Adds entries to a table; the file is replaced as a whole.

    What is already compiled keeps the settings it was compiled with.

    Args:
      path: The file, made if there is none.
      entries: Entries by key.

    Raises:
      ValueError: If the file is there and is no table.
    """
    path = pathlib.Path(path)
    table = {**read_table(path), **entries}
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, suffix=".json", delete=False
    ) as file:
        json.dump(table, file, indent=1, sort_keys=True)
        file.write("\n")
    os.replace(file.name, path)
    _cached.cache_clear()


@functools.lru_cache
def _cached(device_kind: str, folder: str | None) -> dict[str, Any]:
    table = read_table(table_path(device_kind))
    if folder:
        table = {**table, **read_table(table_path(device_kind, folder))}
    return table
