"""Times products with packed matrices, on a GPU beside peers from elsewhere.

    python benchmarks/dequant_matmul.py --help
    python benchmarks/dequant_matmul.py --preset full --bits 3 4 --rows 1 8

What `jeff bench dequant-matmul` does, with two additions: the record goes to
``benchmarks/records``, and on a GPU every peer of `dequant_matmul_peers.py` that can be
imported is checked and timed beside, with the same codes, scales and zero points. The
record says why a peer is absent. A CPU has no peers.
"""

import dataclasses
import os
import pathlib

# Peers need room on the GPU too; must be set before JAX looks for one.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import tyro
from dequant_matmul_peers import PEERS

from jeff import io
from pallas_kernels.dequant_matmul import bench, records, workload

RECORDS = pathlib.Path(__file__).resolve().parent / "records"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """What is timed, and where the record goes."""

    preset: str = "small"
    """small, full or smoke."""
    bits: tuple[int, ...] = ()
    """Widths of codes instead of the preset's."""
    rows: tuple[int, ...] = ()
    """Rows of x instead of the preset's."""
    tune: pathlib.Path | None = None
    """On a GPU: search the kernel's settings first; folder of their table."""
    seed: int = 0
    """Seed of weights and activations."""
    remark: tuple[str, ...] = ()
    """Sentences for the record, such as what else the machine did."""
    out: pathlib.Path | None = None
    """The record; by default one per kind of device in benchmarks/records."""


def main(arguments: Arguments) -> None:
    """Runs the benchmark and writes the record."""
    on_cpu = jax.default_backend() == "cpu"
    if arguments.preset not in workload.PRESETS:
        raise SystemExit(f"--preset must be one of {', '.join(workload.PRESETS)}")
    changes = {k: getattr(arguments, k) for k in ("bits", "rows")}
    settings = dataclasses.replace(
        workload.PRESETS[arguments.preset], **{k: v for k, v in changes.items() if v}
    )
    report = bench.run(
        settings,
        seed=arguments.seed,
        peers=() if on_cpu else PEERS,
        tables=arguments.tune,
        say=lambda text: print(text, flush=True),
    )
    record = records.record(
        report,
        preset=arguments.preset,
        seed=arguments.seed,
        versions=io.versions(),
        device=io.device(),
        remarks=arguments.remark,
    )
    kind = "cpu" if on_cpu else jax.devices()[0].device_kind.split()[-1].lower()
    out = arguments.out or RECORDS / f"{records.NAME}_{kind}.json"
    io.write_atomically(out, io.result_text(record))
    for row in report.rows:
        if row.seconds is None:
            print(f"{row.case.name} {row.implementation}: {row.status}")
        else:
            microseconds = 1e6 * row.seconds.median
            print(f"{row.case.name} {row.implementation}: {microseconds:.1f} us")
    print(out)


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
