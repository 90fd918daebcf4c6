"""Times trials that run together, one after another, and in groups.

    python benchmarks/sweep_plan.py

A unit of 16 trials of a small network (three convolutions and a linear layer, or three
linear layers), with weights that differ between trials, or with features that do. Their
faults are drawn sparsely, by `jeff.faults`, or as one would write it, with
`jax.random.bernoulli` for every element. Says which way `jeff.sweep.make_plan` takes by
itself, and times groups of a few trials where it takes them or where weights differ.
Programs take turns.
"""

import dataclasses
import itertools
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from jeff import io, sweep
from jeff.faults import on_weights, stuck_at
from jeff.sweep.engine.execute import Devices
from jeff.sweep.planning import choose
from jeff.sweep.planning.arguments import checked
from pallas_kernels import timing

RECORDS = pathlib.Path(__file__).resolve().parent / "records"
UNIT = 16
FEW = 4  # trials in a group, where the plan has no groups of its own
RATE = 1e-3  # per bit where draws are sparse, per element where they are not
DRAWS = ("sparse", "bernoulli")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """What is timed, and where the record goes."""

    batches: tuple[int, ...] = (1, 16, 64)
    """Examples that every trial sees."""
    repeats: int = 20
    """Timed runs."""
    remark: tuple[str, ...] = ()
    """Sentences for the record, such as what else the machine did."""
    out: pathlib.Path = RECORDS / "sweep_plan.json"
    """The record."""


def convolutions(key):
    """Weights of three convolutions and a linear layer, and the shape of an image."""
    shapes = [(3, 3, 3, 16), (3, 3, 16, 32), (3, 3, 32, 32), (32, 10)]
    return [normal(key, i, s) for i, s in enumerate(shapes)], (16, 16, 3)


def products(key):
    """Weights of three linear layers, and the shape of an input."""
    shapes = [(256, 256), (256, 256), (256, 10)]
    return [normal(key, i, s) for i, s in enumerate(shapes)], (256,)


def normal(key, i, shape):
    """A weight matrix or kernel of about unit gain."""
    scale = np.prod(shape[:-1], dtype=np.float32) ** -0.5
    return jax.random.normal(jax.random.fold_in(key, i), shape) * scale


def apply(weights, x, after=lambda i, y: y):
    """Outputs of the network; `after` is done to what each layer gives."""
    for i, w in enumerate(weights):
        if w.ndim == 4:
            x = jax.lax.conv_general_dilated(
                x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
        else:
            x = (x.mean((1, 2)) if x.ndim == 4 else x) @ w
        x = after(i, x)
        x = jax.nn.relu(x) if i < len(weights) - 1 else x
    return x


def bernoulli(key, rate, x):
    """Some elements set to zero."""
    return jnp.where(jax.random.bernoulli(key, rate, x.shape), 0.0, x)


def bits(rate):
    """Some bits set to zero, which leaves numbers as small as they were."""
    return stuck_at(rate, one_share=0.0, method="sparse", max_rate=RATE)


def sparse(key, rate, x):
    """The same for one array."""
    model = bits(rate)
    return model.inject(model.sample(key, x), x)


def trial(kind, draws, weights):
    """Faults of weights, drawn once per trial, or of features, drawn per batch."""
    hit = {"sparse": sparse, "bernoulli": bernoulli}[draws]

    def draw(key, rate, design):
        if kind == "features":
            return key, rate
        if draws == "sparse":  # all leaves at once
            model = on_weights(bits(rate))
            return model.inject(model.sample(key, weights), weights)
        return [hit(jax.random.fold_in(key, i), rate, w) for i, w in enumerate(weights)]

    def evaluate(faulty, batch):
        def after(i, y):
            return hit(jax.random.fold_in(faulty[0], i), faulty[1], y)

        if kind == "features":
            y = apply(weights, batch.data, after)
        else:
            y = apply(faulty, batch.data)
        return jnp.sum(jnp.where(batch.valid[:, None], y, 0.0))

    return sweep.Trial(draw, evaluate)


def prepared(subject, batch, over):
    """The plan of a sweep of one unit, and a function that runs it once."""
    case = checked(*subject, rates=[RATE], trials=UNIT, data=batch)
    plan = choose.prepare(
        case, over=over, unit=UNIT, batch=len(batch), devices=jax.local_devices()[:1]
    )
    devices = Devices(case, plan, jax.local_devices()[:1])
    return lambda: next(iter(devices.compute([0], 1)))[1]


def processor_seconds(runs, repeats):
    """What each way takes of all cores together, in turns."""
    found = {way: [] for way in runs}
    for _ in range(repeats):
        for way, run in runs.items():
            start = time.process_time()
            run()
            found[way].append(time.process_time() - start)
    return {way: np.asarray(seconds) for way, seconds in found.items()}


def measures(case, subject, batch, repeats):
    """The numbers of one case."""
    group = sweep.make_plan(
        *subject, rates=[RATE], trials=UNIT, data=batch, unit=UNIT, batch=len(batch)
    ).group
    chosen = {1: "map", UNIT: "vmap"}.get(group, "groups")
    ways = {"map": 1, "vmap": UNIT, chosen: group}
    if ".weights." in case:
        ways.setdefault("groups", FEW)
    runs = {way: prepared(subject, batch, number) for way, number in ways.items()}
    got = {way: run()[""] for way, run in runs.items()}
    for way in runs:
        if not np.allclose(got["map"], got[way], rtol=1e-3, atol=1e-2):
            raise SystemExit(f"{case}: map and {way} differ")
    programs = {
        way: timing.Program(first=run, run=run, products=1, sets=1, nbytes=0)
        for way, run in runs.items()
    }
    seconds = timing.times(programs, repeats)
    found = {f"seconds.{way}.{case}": (s, "s") for way, s in seconds.items()}
    for way in seconds:
        if way != chosen:
            found[f"ratio.{way}.{case}"] = (seconds[way] / seconds[chosen], "")
    spent = processor_seconds(runs, repeats)
    found[f"processor_ratio.{case}"] = (spent["vmap"] / spent["map"], "")
    spreads = [(n, timing.spread(s), unit) for n, (s, unit) in found.items()]
    return [
        {
            "name": name, "value": s.median, "unit": unit, "baseline": None,
            "paper": None, "low": s.low, "high": s.high, "trials": s.trials,
        }
        for name, s, unit in spreads
    ]  # fmt: skip


def main(arguments: Arguments) -> None:
    """Runs the benchmark and writes the record."""
    start, key, found = time.perf_counter(), jax.random.key(0), []
    layers = (convolutions, products)
    cases = itertools.product(layers, ("weights", "features"), DRAWS, arguments.batches)
    for make, kind, draws, size in cases:
        weights, shape = make(key)
        batch = np.asarray(jax.random.normal(key, (size, *shape)))
        case = f"{make.__name__}.{kind}.{draws}.batch{size}"
        new = measures(
            case, (trial(kind, draws, weights), key), batch, arguments.repeats
        )
        found += new
        for m in (m for m in new if m["name"].startswith("ratio.")):
            value = f"{m['value']:.2f} [{m['low']:.2f}, {m['high']:.2f}]"
            print(f"{m['name']}: {value}", flush=True)
    record = {
        "format": io.RESULT_FORMAT,
        "system": "sweep_plan",
        "preset": "default",
        "settings": {
            "batches": list(arguments.batches), "repeats": arguments.repeats,
            "unit": UNIT, "few": FEW, "rate": RATE,
        },
        "seed": 0,
        "versions": io.versions(),
        "device": io.device(),
        "seconds": round(time.perf_counter() - start, 3),
        "measures": found,
        "notes": [
            f"A unit of {UNIT} trials at rate {RATE:g}: per bit where draws are sparse "
            "(`jeff.faults`), per element where not (`jax.random.bernoulli`).",
            f"Together: all {UNIT} trials; in groups: as many at a time as the plan "
            f"takes, or {FEW} where weights differ and it takes another way.",
            "Seconds are those of a unit, medians with their 95 % intervals by ranks. "
            "The plan's way is in bold; beside the others stands their time over its, "
            "in the same round: larger than 1 where the plan is right.",
            "Processor time: of all cores, together over one by one. Where it is above "
            "1 and trials together take less time, they use cores that would be idle.",
            *arguments.remark,
        ],
    }  # fmt: skip
    io.validate_result(record)
    io.write_atomically(arguments.out, io.result_text(record))
    print(arguments.out)


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
