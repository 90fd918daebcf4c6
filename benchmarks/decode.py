"""Times decoders with packed weights beside dense ones.

    python benchmarks/decode.py --help
    python benchmarks/decode.py --preset full

What `jeff bench decode` does, but the record goes to ``benchmarks/records``.
"""

import dataclasses
import pathlib

import jax
import tyro

from jeff import io
from jeff.models import decode_bench

RECORDS = pathlib.Path(__file__).resolve().parent / "records"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """What is timed, and where the record goes."""

    preset: str = "small"
    """small, full or smoke."""
    decoders: tuple[str, ...] = ()
    """Names of the preset's decoders; all of them if none is named."""
    batches: tuple[int, ...] = ()
    """Sequences decoded together instead of the preset's."""
    repeats: int | None = None
    """Timed runs instead of the preset's."""
    seed: int = 0
    """Seed of the weights."""
    remark: tuple[str, ...] = ()
    """Sentences for the record, such as what else the machine did."""
    out: pathlib.Path | None = None
    """The record; by default decode.json, or decode.KIND.json on a GPU."""


def main(arguments: Arguments) -> None:
    """Runs the benchmark and writes the record."""
    if arguments.preset not in decode_bench.PRESETS:
        raise SystemExit(f"--preset must be one of {', '.join(decode_bench.PRESETS)}")
    preset = decode_bench.PRESETS[arguments.preset]
    known = dict(preset.decoders)
    unknown = set(arguments.decoders) - set(known)
    if unknown:
        raise SystemExit(f"--decoders must be of {', '.join(known)}")
    settings = dataclasses.replace(
        preset,
        decoders=tuple((n, known[n]) for n in arguments.decoders or known),
        batches=arguments.batches or preset.batches,
        repeats=preset.repeats if arguments.repeats is None else arguments.repeats,
    )
    report = decode_bench.run(
        settings, seed=arguments.seed, say=lambda text: print(text, flush=True)
    )
    record = decode_bench.record(
        report,
        preset=arguments.preset,
        seed=arguments.seed,
        versions=io.versions(),
        device=io.device(),
        remarks=arguments.remark,
    )
    on_cpu = jax.default_backend() == "cpu"
    kind = "" if on_cpu else f".{jax.devices()[0].device_kind.split()[-1].lower()}"
    out = arguments.out or RECORDS / f"decode{kind}.json"
    io.write_atomically(out, io.result_text(record))
    for row in report.rows:
        name = f"{row.model} {row.kind} {row.weights} {row.size}"
        seconds = row.seconds
        time = row.status if seconds is None else f"{1e3 * seconds.median:.2f} ms"
        print(f"{name}: {time}")
    print(out)


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
