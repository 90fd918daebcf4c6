"""Temporary memory of decomposed voters, by the share of a layer that is memorised.

    python benchmarks/bnn_memory.py

compiles `jeff.dm_bnn.predict` in mode ``"dm"`` for several `alpha`, in modes ``"lrt"``
and ``"flipout"`` for two numbers of voters at a time, and reads what the compiler sets
aside beside inputs and outputs. Nothing is run, and another run finds the same. Half a
minute on a CPU.
"""

import dataclasses
import math
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import jax
import tyro

from jeff import dm_bnn, io
from jeff.evaluate import Measure

RECORD = pathlib.Path(__file__).resolve().parent / "records" / "bnn_memory.json"
CASES = {"layer": ((784, 200), (100,)), "network": ((784, 200, 200, 10), (10, 10, 1))}
"""By name, sizes of the layers and the tree of voters."""
SAMPLED = {"lrt": 64, "flipout": 1}
"""By mode that does not decompose, rows; 100 voters of the network."""
NOTES = [
    "layer: 784-200, 100 voters of each row; network: 784-200-200-10, ReLU, no biases, "
    "tree 10x10x1 for each row; mode dm; float32",
    "temp_bytes: of the compiled program, beside its inputs and outputs; it holds "
    "beta and the tiles of noise, and activations and outputs of voters",
    "beta_bytes: what is memorised of std * x by the formula, in the largest layer: 4 "
    "bytes for each weight in the columns that are held, and for each row",
    "temp_bytes of lrt and flipout: 100 voters of the network, as many at a time as "
    "predict takes by itself, or all",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What is compiled, and where the record goes."""

    alphas: tuple[float, ...] = (1.0, 0.5, 0.25, 0.1, 0.005)
    """Shares of a layer."""
    rows: tuple[int, ...] = (1, 4)
    """Inputs that share their voters."""
    tile: int = 2**14
    """Draws held at a time; the default of `jeff.dm_bnn.predict`."""
    out: pathlib.Path = RECORD
    """File of the record."""


def main(settings: Settings) -> None:
    """Compiles every case and writes the record."""
    jax.config.update("jax_platforms", "cpu")
    start = time.monotonic()
    measures = []
    for case, (sizes, voters) in CASES.items():
        for rows in settings.rows:
            for alpha in settings.alphas:
                name = f"{case}_b{rows}_alpha_{alpha:g}"
                options = {"mode": "dm", "alpha": alpha, "tile": settings.tile}
                found = temp_bytes(sizes, voters, rows, **options)
                held = beta_bytes(sizes, rows, alpha)
                print(f"{name}: {found} bytes, beta {held}", flush=True)
                measures.append(Measure(f"temp_bytes.{name}", found, "bytes"))
                measures.append(Measure(f"beta_bytes.{name}", held, "bytes"))
    sizes, count = CASES["network"][0], 100
    for mode, rows in SAMPLED.items():
        for together, chunk in (("default", None), ("all", count)):
            name = f"{mode}_b{rows}_chunk_{together}"
            found = temp_bytes(sizes, (count,), rows, mode=mode, chunk=chunk)
            print(f"{name}: {found} bytes", flush=True)
            measures.append(Measure(f"temp_bytes.{name}", found, "bytes"))
    fields = dataclasses.asdict(settings).items()
    record = {
        "format": io.RESULT_FORMAT,
        "system": "bnn_memory",
        "preset": "default",
        "settings": {k: v for k, v in fields if not isinstance(v, pathlib.Path)},
        "seed": 0,
        "versions": io.versions(),
        "device": io.device(),
        "seconds": round(time.monotonic() - start, 1),
        "measures": [dataclasses.asdict(m) for m in measures],
        "notes": NOTES,
    }
    io.write_atomically(settings.out, io.result_text(record))


def temp_bytes(
    sizes: Sequence[int], voters: Sequence[int], rows: int, **options: Any
) -> int:
    """What the compiled program sets aside beside its inputs and outputs.

    Args:
      sizes: Inputs, hidden units, outputs.
      voters: Branches at each level.
      rows: Inputs at a time.
      **options: Of `jeff.dm_bnn.predict`.

    Returns:
      Bytes.
    """

    def network(weights, x):
        for i, w in enumerate(weights):
            x = x @ w
            x = jax.nn.relu(x) if i < len(weights) - 1 else x
        return x

    def call(key, posterior, x):
        return dm_bnn.predict(network, posterior, x, key, voters=voters, **options)

    specs = [jax.ShapeDtypeStruct(pair, "float32") for pair in _pairs(sizes)]
    posterior = [dm_bnn.MeanField(spec, spec) for spec in specs]
    x = jax.ShapeDtypeStruct((rows, sizes[0]), "float32")
    compiled = jax.jit(call).lower(jax.random.key(0), posterior, x).compile()
    return int(compiled.memory_analysis().temp_size_in_bytes)


def beta_bytes(sizes: Sequence[int], rows: int, alpha: float) -> int:
    """What is memorised of ``std * x`` in the largest layer, by the formula.

    Args:
      sizes: As in `temp_bytes`.
      rows: Likewise.
      alpha: Of `jeff.dm_bnn.predict`.

    Returns:
      Bytes.
    """
    return max(4 * rows * n * math.ceil(alpha * m - 1e-9) for n, m in _pairs(sizes))


def _pairs(sizes: Sequence[int]) -> list[tuple[int, int]]:
    return list(zip(sizes, sizes[1:], strict=False))


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
