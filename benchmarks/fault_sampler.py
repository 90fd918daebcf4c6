"""Times the samplers of faults by rate, on one core and on all.

    python benchmarks/fault_sampler.py

Flips of int8 weights, 8 bits each, as many as a ResNet-20 has: *draw* gives the words
of flipped bits, *flip* draws them and gives the flipped weights. Every method of
`jeff.faults` that reaches the rate; sparse draws also with a rate that is thinned from
``max_rate``, and for the leaves of a tree at once; and beside them what one would write
without the package, ``jax.random.bernoulli`` of every bit. They take turns; compilation
is timed apart. Every number of cores is measured in a process of its own.
"""

import concurrent.futures
import dataclasses
import functools
import multiprocessing
import os
import pathlib
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import tyro

from jeff import io
from jeff.evaluate import Measure
from jeff.faults import bit_flip, bit_words, choose, on_weights
from jeff.faults.method import METHODS
from pallas_kernels import timing

RECORDS = pathlib.Path(__file__).resolve().parent / "records"
RATES = (1e-5, 1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.5)
# Weights of the convolutions and of the head of ResNet-20 for 32 x 32 images.
LEAVES = (432, *[2304] * 6, 4608, *[9216] * 5, 18432, *[36864] * 5, 640)
RUN = 0.02  # about how many seconds a run takes
MOST_CALLS = 100  # of a run


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """What is timed, and where the record goes."""

    words: int = 272_474
    """Number of int8 weights."""
    rates: tuple[float, ...] = RATES
    """Rates of flips, per bit."""
    runs: int = 30
    """Timed runs of each."""
    cores: int = len(os.sched_getaffinity(0))
    """Cores of the main comparison; it is repeated on one core."""
    remark: tuple[str, ...] = ()
    """Sentences for the record, such as what else the machine did."""
    out: pathlib.Path = RECORDS / "fault_sampler.json"
    """The record."""


def bernoulli(key: jax.Array, *, rate: float, words: int) -> jax.Array:
    """What one would write: a Bernoulli variable for every bit."""
    hit = jax.random.bernoulli(key, rate, (words, 8)).astype(jnp.uint8)
    return jnp.sum(hit << jnp.arange(8, dtype=jnp.uint8), axis=-1, dtype=jnp.uint8)


def draws(rate: float, words: int) -> dict[str, Callable]:
    """The draws of one rate by name: functions of a key that give words."""
    draw = functools.partial(bit_words, shape=(words,), bits=8)
    found: dict[str, Callable] = {
        m: functools.partial(draw, rate=rate, method=m) for m in METHODS
    }
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
    found["bernoulli"] = functools.partial(bernoulli, rate=rate, words=words)
    return found


def flips(rate: float, words: int) -> dict[str, Callable]:
    """The same with their use: functions of a key and weights that give weights."""

    def flipped(method, key, weights):
        model = bit_flip(rate, method=method)
        return model.inject(model.sample(key, weights), weights)

    def by_hand(key, weights):
        word = bernoulli(key, rate=rate, words=words)
        return weights ^ jax.lax.bitcast_convert_type(word, jnp.int8)

    found = {m: functools.partial(flipped, m) for m in ("sparse", "dense")}
    return {**found, "bernoulli": by_hand}


def program(made: Callable, *arguments: jax.Array) -> tuple[timing.Program, float]:
    """A function of a key as a program to time, and the seconds of its compilation.

    Raises:
      ValueError: If the method cannot reach the rate.
    """
    keys = list(jax.random.split(jax.random.key(0), MOST_CALLS))
    run = jax.jit(lambda key, *rest: made(key, *rest))
    lowered = run.lower(keys[0], *arguments)
    start = time.perf_counter()
    lowered.compile()
    seconds = time.perf_counter() - start

    def once(key):
        jax.block_until_ready(run(key, *arguments))

    once(keys[0])
    start = time.perf_counter()
    once(keys[0])
    calls = round(RUN / (time.perf_counter() - start))
    calls = min(max(calls, 1), MOST_CALLS)
    return timing.Program(
        first=lambda: None,
        run=lambda: [once(key) for key in keys[:calls]],
        products=calls,
        sets=1,
        nbytes=0,
    ), seconds


def measured(rate: float, words: int, runs: int, suffix: str) -> list[Measure]:
    """The numbers of one rate."""
    weights = jax.random.bits(jax.random.key(1), (words,), jnp.uint8).astype(jnp.int8)
    made = {f"draw.{name}": (f, ()) for name, f in draws(rate, words).items()}
    made |= {f"flip.{name}": (f, (weights,)) for name, f in flips(rate, words).items()}
    programs, found = {}, []
    for name, (function, arguments) in made.items():
        try:
            programs[name], took = program(function, *arguments)
        except ValueError:  # the method cannot reach the rate
            continue
        found.append(Measure(f"compile_seconds.{name}.{rate:g}{suffix}", took, "s"))
    seconds = timing.times(programs, runs)
    for name, samples in seconds.items():
        kind, _, method = name.partition(".")
        case = f"{name}.{rate:g}{suffix}"
        found.append(middle(f"seconds.{case}", samples, "s"))
        for other in ("dense", "bernoulli"):
            reference = seconds.get(f"{kind}.{other}")
            if method not in (other, "dense", "bernoulli") and reference is not None:
                found.append(middle(f"ratio.{other}.{case}", reference / samples, ""))
    return found


def middle(name: str, samples, unit: str) -> Measure:
    """Median and interval."""
    s = timing.spread(samples)
    return Measure(name, s.median, unit, low=s.low, high=s.high, trials=s.trials)


def on_cores(count: int, suffix: str, arguments: Arguments) -> list[Measure]:
    """All rates, in a process that is confined to some cores before JAX starts."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-count:])
    jax.config.update("jax_platforms", "cpu")
    found = []
    for rate in arguments.rates:
        new = measured(rate, arguments.words, arguments.runs, suffix)
        found += new
        for m in new:
            if not m.name.startswith("compile"):
                print(f"{m.name:>44} {m.value:.3g} {m.unit}", flush=True)
    return found


def main(arguments: Arguments) -> None:
    """Runs the benchmark, prints the table and writes the record."""
    start, found = time.perf_counter(), []
    spawn = multiprocessing.get_context("spawn")
    for count in sorted({arguments.cores, 1}, reverse=True):
        suffix = "_one_core" if count < arguments.cores else ""
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
            found += pool.submit(on_cores, count, suffix, arguments).result()
    record = {
        "format": io.RESULT_FORMAT,
        "system": "fault_sampler",
        "preset": "default",
        "settings": {
            "words": arguments.words,
            "rates": list(arguments.rates),
            "runs": arguments.runs,
            "cores": arguments.cores,
        },
        "seed": 0,
        "versions": io.versions(),
        "device": f"cpu, {arguments.cores} cores",
        "seconds": round(time.perf_counter() - start, 3),
        "measures": [dataclasses.asdict(m) for m in found],
        "notes": [
            f"Words of flipped bits for {arguments.words:,} int8 weights (`draw`), and "
            "the flipped weights (`flip`), at a rate per bit; each is called from "
            "Python and waited for. thinned: half of the rate, with max_rate the rate; "
            "tree: the 19 convolutions and the head of a ResNet-20 at once, by "
            "on_weights.",
            "dense: `bit_words(method='dense')`; bernoulli: `jax.random.bernoulli` of "
            "every bit, packed into words. Ratios are of the same round; medians with "
            "their 95 % intervals by ranks.",
            *arguments.remark,
        ],
    }
    io.validate_result(record)
    io.write_atomically(arguments.out, io.result_text(record))
    print(arguments.out)


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
