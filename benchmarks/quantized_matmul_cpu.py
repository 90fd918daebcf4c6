"""Times `jeff.quantize.matmul` against decoding the whole weight first.

    python benchmarks/quantized_matmul_cpu.py

Per case: the product with the packed weight, the product with the weight decoded in the
same program, and the product with the float32 weight. Results are compared before any
is timed; the three take turns within a round, so that what else the machine does hits
all of them; a ratio is that of one round, larger than 1 where jeff is faster.
"""

import dataclasses
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from scipy import stats

from jeff import evaluate, io
from jeff.quantize import QuantConfig, matmul, quantize

ROOT = pathlib.Path(__file__).resolve().parents[1]
PEERS = ("decode_first", "float32")
NOTES = (
    "value: median over rounds; low, high: 95 % interval of the median by its ranks",
    "ratio.PEER.CASE: seconds of the peer / seconds of jeff, of the same round",
    "case KxN.wB.mM: weight [K, N] of B bits with float32 scales per group of 128 "
    "(4304: of 16), M rows of x",
    "error.CASE: largest difference from the float64 product, relative to its largest "
    "value",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What is timed."""

    seed: int = 0
    """Seed of weights and inputs."""
    rounds: int = 25
    """Rounds, each timing every program once."""
    out: pathlib.Path = ROOT / "benchmarks" / "records" / "quantized_matmul_cpu.json"
    """The record."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One product."""

    size: int
    columns: int
    bits: int
    rows: int

    @property
    def name(self) -> str:
        """Short name, without dots inside its parts."""
        return f"{self.size}x{self.columns}.w{self.bits}.m{self.rows}"


CASES = (
    *(Case(size=4096, columns=4096, bits=3, rows=m) for m in (1, 2, 4, 8, 16, 64)),
    *(Case(size=4096, columns=4096, bits=b, rows=1) for b in (2, 4, 8)),
    *(Case(size=4096, columns=4096, bits=b, rows=16) for b in (2, 4, 8)),
    *(Case(size=1024, columns=32768, bits=3, rows=m) for m in (1, 16)),
    *(Case(size=4304, columns=1152, bits=3, rows=m) for m in (1, 16)),
    *(Case(size=512, columns=512, bits=3, rows=m) for m in (1, 16)),
)


def median(samples: np.ndarray) -> tuple[float, float, float]:
    """The median and the ends of its 95 % interval, from order statistics."""
    ordered = np.sort(samples)
    below = int(stats.binom.ppf(0.025, len(ordered), 0.5)) - 1
    below = max(below, 0)
    ends = ordered[below], ordered[len(ordered) - 1 - below]
    return float(np.median(ordered)), float(ends[0]), float(ends[1])


def run_case(case: Case, settings: Settings) -> list[evaluate.Measure]:
    """Checks and times one case."""
    key_w, key_x = jax.random.split(jax.random.key(settings.seed))
    group = 16 if case.size == 4304 else 128
    packed = quantize(
        jax.random.normal(key_w, (case.size, case.columns)),
        QuantConfig(bits=case.bits, group_size=group),
    )
    x = jax.random.normal(key_x, (case.rows, case.size))
    dense = packed.decode()
    programs = {
        "jeff": (jax.jit(matmul), (x, packed)),
        "decode_first": (jax.jit(lambda x, w: x @ w.decode()), (x, packed)),
        "float32": (jax.jit(jnp.matmul), (x, dense)),
    }
    exact = np.asarray(x, np.float64) @ np.asarray(dense, np.float64)
    errors = {
        name: float(np.abs(fn(*args) - exact).max() / np.abs(exact).max())
        for name, (fn, args) in programs.items()
    }
    if max(errors.values()) > 1e-5:
        raise SystemExit(f"{case.name}: programs disagree: {errors}")
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(settings.rounds):
        for name, (fn, args) in programs.items():
            start = time.perf_counter()
            jax.block_until_ready(fn(*args))
            seconds[name].append(time.perf_counter() - start)
    times = {name: np.array(s) for name, s in seconds.items()}
    measures = [evaluate.Measure(f"error.{case.name}", errors["jeff"])]
    for name, samples in times.items():
        value, low, high = median(samples)
        measures.append(
            evaluate.Measure(
                f"seconds.{name}.{case.name}", value, "s",
                low=low, high=high, trials=settings.rounds,
            )
        )  # fmt: skip
    for peer in PEERS:
        value, low, high = median(times[peer] / times["jeff"])
        measures.append(
            evaluate.Measure(
                f"ratio.{peer}.{case.name}", value,
                low=low, high=high, trials=settings.rounds,
            )
        )  # fmt: skip
    return measures


def main(settings: Settings) -> None:
    """Runs every case and writes the record."""
    start = time.perf_counter()
    measures = []
    for case in CASES:
        new = run_case(case, settings)
        by_name = {m.name: m.value for m in new}
        times = ", ".join(
            f"{name} {1e3 * by_name[f'seconds.{name}.{case.name}']:.2f} ms"
            for name in ("jeff", *PEERS)
        )
        print(f"{case.name}: {times}", flush=True)
        measures += new
    record = {
        "format": 1,
        "system": "quantized_matmul_cpu",
        "preset": "default",
        "settings": {"rounds": settings.rounds},
        "seed": settings.seed,
        "versions": io.versions(),
        "device": io.device(),
        "seconds": time.perf_counter() - start,
        "measures": [dataclasses.asdict(m) for m in measures],
        "notes": list(NOTES),
    }
    io.write_atomically(settings.out, io.result_text(record))


if __name__ == "__main__":
    main(tyro.cli(Settings))
