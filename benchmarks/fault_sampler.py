"""Times the samplers of faults by rate.

    python benchmarks/fault_sampler.py

Draws flip words for int8 weights (8 bits each, 272,474 of them as in a ResNet-20) as
one array with every method that reaches the rate; sparse draws also with a rate that is
thinned from ``max_rate``, and for the leaves of a tree at once. Methods take turns.
Compilation is timed apart, once per program.
"""

import dataclasses
import functools
import pathlib
import time

import jax
import jax.numpy as jnp
import tyro

from jeff import io
from jeff.faults import bit_flip, bit_words, choose, on_weights
from jeff.faults.method import METHODS
from pallas_kernels.dequant_matmul import timing

RECORDS = pathlib.Path(__file__).resolve().parent / "records"
RATES = (1e-5, 1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.5)
# Weights of the convolutions and of the head of ResNet-20 for 32 x 32 images.
LEAVES = (432, *[2304] * 6, 4608, *[9216] * 5, 18432, *[36864] * 5, 640)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """What is timed, and where the record goes."""

    words: int = 272_474
    """Number of int8 weights."""
    rates: tuple[float, ...] = RATES
    """Rates of flips, per bit."""
    runs: int = 30
    """Timed draws of each."""
    remark: tuple[str, ...] = ()
    """Sentences for the record, such as what else the machine did."""
    out: pathlib.Path = RECORDS / "fault_sampler.json"
    """The record."""


def programs(rate: float, words: int) -> dict[str, functools.partial]:
    """The draws of one rate, by name: functions of a key."""
    draw = functools.partial(bit_words, shape=(words,), bits=8)
    found = {m: functools.partial(draw, rate=rate, method=m) for m in METHODS}
    if rate < 0.1:
        found["thinned"] = functools.partial(
            draw, rate=rate / 2, max_rate=rate, method="sparse"
        )
    if choose(rate, words * 8) == "sparse":
        like = {
            f"w{i}": jax.ShapeDtypeStruct((n,), "int8") for i, n in enumerate(LEAVES)
        }
        sample = on_weights(bit_flip(rate)).sample
        found["tree"] = lambda key: sample(key, like)
    return found


def compiled(draw, key: jax.Array):
    """The compiled draw and what compiling took in seconds, or ``None``."""
    try:
        lowered = jax.jit(lambda key: draw(key=key)).lower(key)
    except ValueError:  # the method cannot reach the rate
        return None
    start = time.perf_counter()
    return lowered.compile(), time.perf_counter() - start


def measure(name: str, value: float, unit: str, spread=None) -> dict:
    """One entry of the record."""
    return {
        "name": name, "value": value, "unit": unit, "baseline": None, "paper": None,
        "low": spread and spread.low, "high": spread and spread.high,
        "trials": spread.trials if spread else 1,
    }  # fmt: skip


def measured(rate: float, arguments: Arguments) -> list[dict]:
    """The numbers of one rate."""
    key = jax.random.key(0)
    ready = {n: compiled(d, key) for n, d in programs(rate, arguments.words).items()}
    ready = {name: both for name, both in ready.items() if both is not None}
    runs = {
        name: timing.Program(
            first=functools.partial(draw, key),
            run=lambda draw=draw: jax.block_until_ready(draw(key)),
            products=1,
            sets=1,
            nbytes=0,
        )
        for name, (draw, _) in ready.items()
    }
    seconds = timing.times(runs, arguments.runs)
    listed = []
    for name, samples in seconds.items():
        case = f"{name}.{rate:g}"
        s = timing.spread(samples)
        listed.append(measure(f"seconds.{case}", s.median, "s", s))
        listed.append(measure(f"compile_seconds.{case}", ready[name][1], "s"))
        if name != "dense" and "dense" in seconds:
            s = timing.spread(seconds["dense"] / samples)
            listed.append(measure(f"ratio.dense.{case}", s.median, "", s))
    return listed


def main(arguments: Arguments) -> None:
    """Runs the benchmark, prints the table and writes the record."""
    start, found = time.perf_counter(), []
    jax.block_until_ready(jnp.ones(()))
    for rate in arguments.rates:
        new = measured(rate, arguments)
        found += new
        for m in new:
            if m["name"].startswith(("seconds", "ratio")):
                print(f"{m['name']:>28} {m['value']:.3g} {m['unit']}", flush=True)
    record = {
        "format": io.RESULT_FORMAT,
        "system": "fault_sampler",
        "preset": "default",
        "settings": {
            "words": arguments.words,
            "rates": list(arguments.rates),
            "runs": arguments.runs,
        },
        "seed": 0,
        "versions": io.versions(),
        "device": io.device(),
        "seconds": round(time.perf_counter() - start, 3),
        "measures": found,
        "notes": [
            "CASE is METHOD.RATE, flips of 8-bit words at RATE per bit; thinned: half "
            "of RATE, with max_rate=RATE; tree: the 19 convolutions and the head of a "
            "ResNet-20 at once, by on_weights.",
            "seconds: median and its 95 % interval by ranks; ratio.dense: seconds of "
            "dense over those of the method in the same round; compile_seconds: once, "
            "after lowering.",
            *arguments.remark,
        ],
    }
    io.validate_result(record)
    io.write_atomically(arguments.out, io.result_text(record))
    print(arguments.out)


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
