"""Times products of integers beside products of floating numbers.

    python benchmarks/integer_dot.py

W4A8: activations rounded to 8 bits per token, weights of 4 bits, with one scale per
output channel, or with zero points and a scale per 128 rows. Beside ``"int8"`` stand
the same codes multiplied as float32 (``"float"``), rounded activations times tiles of
decoded weights (``"rounded"``), and the product of dense float32 (``"dense"``).
Programs take turns.
"""

import dataclasses
import functools
import itertools
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from jeff import io
from jeff.quantize import (
    QuantConfig,
    fake_quant_activations,
    integer_dot,
    matmul,
    quantize,
)
from pallas_kernels import timing

RECORDS = pathlib.Path(__file__).resolve().parent / "records"
WEIGHTS = {
    "channel": QuantConfig(bits=4, symmetric=True),
    "groups": QuantConfig(bits=4, group_size=128),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """What is timed, and where the record goes."""

    sizes: tuple[int, ...] = (1024, 3584)
    """Sides of the square weights, multiples of 128."""
    rows: tuple[int, ...] = (1, 8, 128, 512)
    """Tokens."""
    repeats: int = 20
    """Timed runs."""
    remark: tuple[str, ...] = ()
    """Sentences for the record, such as what else the machine did."""
    out: pathlib.Path = RECORDS / "integer_dot.json"
    """The record."""


def rounded(x, w):
    """The product of rounded activations with tiles of decoded weights."""
    return matmul(fake_quant_activations(x, bits=8), w)


PRODUCTS = {
    "int8": functools.partial(integer_dot, implementation="int8"),
    "float": functools.partial(integer_dot, implementation="float"),
    "rounded": rounded,
}


def times(x: jax.Array, w, repeats: int) -> dict[str, np.ndarray]:
    """Seconds of every product, checked against each other first."""
    runs = {name: functools.partial(jax.jit(f), x, w) for name, f in PRODUCTS.items()}
    want = np.asarray(runs["rounded"]())
    for name in ("int8", "float"):
        error = np.abs(runs[name]() - want).max() / np.abs(want).max()
        if not error < 1e-5:
            raise SystemExit(f"{name} is wrong: {error:.1e} of the largest")
    runs["dense"] = functools.partial(jax.jit(jnp.matmul), x, w.decode())
    programs = {
        name: timing.Program(
            first=run,
            run=lambda run=run: jax.block_until_ready(run()),
            products=1,
            sets=1,
            nbytes=0,
        )
        for name, run in runs.items()
    }
    return timing.times(programs, repeats)


def measures(case: str, seconds: dict[str, np.ndarray]) -> list[dict]:
    """The numbers of one product."""
    listed = []
    for name, samples in seconds.items():
        spread = timing.spread(samples)
        ratio = timing.spread(samples / seconds["int8"])
        for kind, unit, s in (("seconds", "s", spread), ("ratio", "", ratio)):
            if (kind, name) != ("ratio", "int8"):
                listed.append(
                    {
                        "name": f"{kind}.{name}.{case}", "value": s.median,
                        "unit": unit, "baseline": None, "paper": None,
                        "low": s.low, "high": s.high, "trials": s.trials,
                    }
                )  # fmt: skip
    return listed


def main(arguments: Arguments) -> None:
    """Runs the benchmark and writes the record."""
    start, rng, found = time.perf_counter(), np.random.default_rng(0), []
    for size, (kind, config) in itertools.product(arguments.sizes, WEIGHTS.items()):
        w = quantize(rng.standard_normal((size, size), np.float32), config)
        for rows in arguments.rows:
            x = jnp.asarray(rng.standard_normal((rows, size), np.float32))
            case = f"{size}x{size}.{kind}.m{rows}"
            found += measures(case, times(x, w, arguments.repeats))
            print(case, flush=True)
    record = {
        "format": io.RESULT_FORMAT,
        "system": "integer_dot",
        "preset": "default",
        "settings": {
            "sizes": list(arguments.sizes),
            "rows": list(arguments.rows),
            "repeats": arguments.repeats,
        },
        "seed": 0,
        "versions": io.versions(),
        "device": io.device(),
        "seconds": round(time.perf_counter() - start, 3),
        "measures": found,
        "notes": [
            "CASE is KxN.SCALES.mTOKENS; weights of 4 bits, activations rounded to 8 "
            "bits, per token, in all but dense; channel: one scale per output channel; "
            "groups: a scale and an integer zero point per 128 rows.",
            "seconds: median and its 95 % interval by ranks; ratio: seconds over those "
            "of int8 in the same round, larger than 1 where int8 is faster.",
            "float: the same codes as float32; rounded: tiles of decoded weights; "
            "dense: a dense float32 weight. Weights may have been read from a cache.",
            *arguments.remark,
        ],
    }
    io.validate_result(record)
    io.write_atomically(arguments.out, io.result_text(record))
    for m in found:
        if m["name"].startswith("ratio"):
            print(f"{m['name']}: {m['value']:.2f} [{m['low']:.2f}, {m['high']:.2f}]")
    print(arguments.out)


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
