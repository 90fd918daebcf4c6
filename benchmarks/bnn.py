"""Voters of Bayesian networks beside bayesian-torch and blitz, on one core.

    python benchmarks/bnn.py --peers PYTHON

PYTHON has torch, bayesian-torch 0.5.0 and blitz 0.2.8 (``pip install torch
scikit-learn``, then ``pip install --no-deps bayesian-torch==0.5.0
blitz-bayesian-pytorch==0.2.8``; jeff is not needed there). Without it jeff is timed
alone, and the record says so. ``--preset smoke`` tries everything in little.

First all contenders get the same noise and must give the same outputs. Then they take
turns at every number of rows and voters. Beside them stand the speed of generators of
normal numbers, what their flaws cost a trained network in accuracy and calibration, and
what an effective voter of a planned tree costs.
"""

import dataclasses
import os
import pathlib
import sys
import time
from typing import Literal

import jax
import tyro
from bnn_cases import (
    agreement,
    contests,
    generator_scores,
    generators,
    planned,
    report,
    subject,
)
from bnn_cases.peers import Peers

from jeff import io
from jeff.evaluate import Measure

RECORD = pathlib.Path(__file__).resolve().parent / "records" / "bnn.json"
PRESETS = {
    "default": (
        contests.Settings((1, 8, 64, 256), (10, 100, 1000), 6, 0.1, 0, 20.0),
        planned.Settings(100, (8, 8, 8), 100, 80, 0),
        generator_scores.Settings(30, 24, 96, 0),
    ),
    "smoke": (
        contests.Settings((1, 8), (10,), 2, 0.01, 0, 20.0),
        planned.Settings(10, (4, 4, 4), 10, 10, 0),
        generator_scores.Settings(3, 2, 2, 0),
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """What is measured, and where the record goes."""

    peers: str = sys.executable
    """Interpreter with torch, bayesian-torch and blitz."""
    preset: Literal["default", "smoke"] = "default"
    """How much is measured."""
    seed: int = 0
    """Seed of everything."""
    remark: tuple[str, ...] = ()
    """Sentences for the record, such as what else the machine did."""
    out: pathlib.Path | None = None
    """The record; by default that of the repository, of the smoke preset none."""


def confine() -> None:
    """Keeps this process, and those it starts, on one core; before JAX starts."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    jax.config.update("jax_platforms", "cpu")


def main(arguments: Arguments) -> None:
    """Runs everything and writes the record."""
    confine()
    start = time.perf_counter()
    timed, trees, asked = (
        s._replace(seed=arguments.seed) for s in PRESETS[arguments.preset]
    )
    posterior = subject.random_posterior(arguments.seed)
    rows = subject.inputs(arguments.seed, max(timed.rows))
    found = {}
    with Peers(arguments.peers, posterior, rows, arguments.seed) as peers:
        same = agreement.differences(posterior, peers, arguments.seed)
        for cell in contests.cells(timed):
            found[cell.rows, cell.voters] = contests.measure(
                cell, timed, posterior, peers
            )
            spent = time.perf_counter() - start
            print(f"{spent:.0f} s: {cell.rows} rows, {cell.voters} voters", flush=True)
        missing, versions = peers.missing, peers.versions
    measures = report.contest_measures(found)
    measures += [Measure(f"output_difference.{n}", e) for n, e in same.items()]
    measures += report.draw_measures(generators.measure(timed, posterior))
    scores = generator_scores.measure(asked)
    measures += generator_scores.score_measures(scores)
    planned_trees = {
        "digits": planned.measure(planned.digits(trees), trees, timed),
        "untrained": planned.measure(
            planned.random(trees), trees._replace(repetitions=0), timed
        ),
    }
    measures += report.tree_measures(planned_trees)
    record = {
        "format": io.RESULT_FORMAT,
        "system": "bnn",
        "preset": arguments.preset,
        "settings": {
            "contests": timed._asdict(),
            "trees": trees._asdict(),
            "generators": asked._asdict(),
        },
        "seed": arguments.seed,
        "versions": {**io.versions(), **versions},
        "device": "cpu, 1 core",
        "seconds": round(time.perf_counter() - start, 3),
        "measures": [dataclasses.asdict(m) for m in measures],
        "notes": [
            *report.notes(timed, planned_trees, trees, missing),
            *generator_scores.notes(asked, scores),
            *arguments.remark,
        ],
    }
    io.validate_result(record)
    for m in measures:
        ends = "" if m.low is None else f" [{m.low:.4g}, {m.high:.4g}]"
        print(f"{m.name}: {m.value:.4g}{ends}")
    out = arguments.out or (RECORD if arguments.preset == "default" else None)
    if out is not None:
        io.write_atomically(out, io.result_text(record))
        print(out)


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
