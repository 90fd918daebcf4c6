"""The benchmark of products with packed matrices: check, then time, beside baselines.

`jeff bench dequant-matmul` is its command line. Per product (a shape, a width of codes,
a number of rows) and implementation:

1. the error of the product relative to ``|x| @ |W|``, against float64; an
   implementation beyond the tolerance is reported as wrong and never timed;
2. the time per product of a compiled chain of them (`timing.chain`), in which weights
   are rotated; wall-clock of the chain from its start to its end on the device.

Beside them stand two baselines: ``decode_first`` (the implementation ``"reference"``
with weights rounded to the dtype of x: dequantize, then XLA's product) and ``dense``
(XLA's product with the weight kept dense). x is bfloat16 on a GPU, float32 on a CPU.
"""

import functools
import itertools
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pallas_kernels import timing
from pallas_kernels.dequant_matmul import programs, weights
from pallas_kernels.dequant_matmul.programs import Problem
from pallas_kernels.dequant_matmul.workload import Case, Settings, cases

__all__ = [
    "TOLERANCES",
    "Peer",
    "Report",
    "Row",
    "run",
]

TOLERANCES = {"bfloat16": 2.0**-7, "float32": 1e-5}
"""Largest error relative to ``|x| @ |W|``, by dtype of x: a result and, in baselines, a
weight are each rounded by half a unit in the last place."""


class Peer(NamedTuple):
    """An implementation from elsewhere.

    Attributes:
      name: Its name in the record.
      build: Gives its program; raises an error that says why it cannot, such as
        `ImportError` or `NotImplementedError`.
    """

    name: str
    build: Callable[[Problem], timing.Program]


class Row(NamedTuple):
    """One line of the result.

    Attributes:
      case: The product.
      implementation: ``"mosaic_gpu"``, ``"xla"``, ``"decode_first"``, ``"dense"``, or a
        peer's name.
      status: ``"measured"``, ``"wrong"``, or ``"absent: "`` and the reason.
      error: Largest error relative to ``|x| @ |W|``; ``None`` if absent.
      seconds: Per product; ``None`` unless measured.
      sets: Distinct sets of weights in rotation.
      nbytes: Bytes of one: words, scales and zero points, or the dense weight.
      samples: Seconds of every timed run, per product.
    """

    case: Case
    implementation: str
    status: str
    error: float | None = None
    seconds: timing.Spread | None = None
    sets: int = 0
    nbytes: int = 0
    samples: tuple[float, ...] = ()


class Report(NamedTuple):
    """Everything a benchmark found.

    Attributes:
      settings: What was asked for.
      rows: The results.
      stream: Bytes per second of reading a large array.
      cache: Bytes of the last-level cache.
      backend: ``"cpu"`` or ``"gpu"``.
      dtype: Dtype of x.
      seconds: Wall-clock time of the benchmark.
      tuned: Entries of the tuning table that were found first, by key.
    """

    settings: Settings
    rows: tuple[Row, ...]
    stream: timing.Spread
    cache: int
    backend: str
    dtype: str
    seconds: float
    tuned: dict[str, Any]


def run(
    settings: Settings,
    *,
    seed: int = 0,
    peers: Sequence[Peer] = (),
    tables: str | os.PathLike | None = None,
    say: Callable[[str], None] = lambda text: None,
    advance: Callable[[], None] = lambda: None,
) -> Report:
    """Checks and times every product.

    Args:
      settings: What is timed, and how.
      seed: Of weights and activations.
      peers: Implementations from elsewhere, timed beside.
      tables: Folder of tuning tables: settings of the kernel are searched for every
        product first, used, and written there. ``None`` takes what is known.
      say: Told one line per product, its errors, before any of it is timed.
      advance: Called after every product.

    Returns:
      The report.

    Raises:
      ValueError: If `tables` is given where the kernel would not run.
      RuntimeError: If no settings of the kernel give a right product.

    Examples:
      >>> import dataclasses
      >>> from pallas_kernels.dequant_matmul.workload import PRESETS
      >>> settings = dataclasses.replace(PRESETS["smoke"], shapes=((128, 32),))
      >>> report = run(settings)
      >>> [(row.implementation, row.status) for row in report.rows[:3]]
      [('xla', 'measured'), ('decode_first', 'measured'), ('dense', 'measured')]
    """
    start = time.perf_counter()
    backend = jax.default_backend()
    if tables is not None and backend == "cpu":
        raise ValueError("tables: the kernel that is tuned does not run on a cpu")
    dtype = "float32" if backend == "cpu" else "bfloat16"
    stream = timing.streaming_read(
        settings.stream_bytes,
        repeats=settings.repeats,
        rounds=1 if backend == "cpu" else 20,
    )
    cache, rows, tuned = timing.cache_bytes(), [], {}
    grouped = itertools.groupby(cases(settings), lambda case: case[:3])
    for index, ((size, columns, bits), group) in enumerate(grouped):
        rng = np.random.default_rng((seed, index))
        sets = _rotation(rng, settings, cache, size, columns, bits)
        plain = _decoded(sets, cache, settings, bits, dtype)
        x = weights.random_x(rng, max(settings.rows), size, dtype)
        want = weights.exact(x, *sets[0], bits=bits)
        for case in group:
            few = slice(case.rows)
            problem = Problem(
                case, settings.group_size, x[few], sets, settings.products
            )
            part = weights.Exact(want.product[few], want.bound[few])
            config = None
            if tables is not None and "mosaic_gpu" in programs.implementations(problem):
                config, entry = programs.tune(
                    problem, part, tables, tolerance=TOLERANCES[dtype]
                )
                tuned.update(entry)
            builds = _builds(problem, plain, config, peers)
            rows += _measured(case, builds, part, settings.repeats, dtype, say)
            advance()
    seconds = time.perf_counter() - start
    return Report(settings, tuple(rows), stream, cache, backend, dtype, seconds, tuned)


def _rotation(rng, settings: Settings, cache, size, columns, bits) -> tuple:
    """Distinct packed matrices, together larger than the cache where there may be."""
    shape = {"size": size, "columns": columns, "bits": bits}
    first = weights.random_weights(rng, **shape, group_size=settings.group_size)
    nbytes = sum(a.nbytes for a in first)
    count = timing.sets_needed(nbytes, cache, settings.most_sets)
    others = (
        weights.random_weights(rng, **shape, group_size=settings.group_size)
        for _ in range(count - 1)
    )
    return (first, *others)


def _decoded(sets, cache, settings: Settings, bits, dtype) -> tuple:
    """The same matrices, dense, as many of them as it takes."""
    packed, scale, _ = sets[0]
    nbytes = packed.size * 32 // bits * jnp.dtype(dtype).itemsize
    count = timing.sets_needed(nbytes, cache, settings.most_sets)
    return tuple(
        (programs.operand_of(*arrays, bits=bits).decode(jnp.dtype(dtype)),)
        for arrays in sets[:count]
    )


def _builds(problem: Problem, plain, config, peers) -> dict[str, Callable]:
    """How to make the program of each implementation, by name."""

    def of_jeff(name):
        kernel = config if name == "mosaic_gpu" else None
        multiply = programs.Multiply(
            name, problem.case.bits, problem.group_size, kernel
        )
        return programs.program_of(problem, multiply, problem.sets)

    names = (*programs.implementations(problem), "decode_first")
    builds = {name: functools.partial(of_jeff, name) for name in names}
    builds["dense"] = functools.partial(
        programs.program_of, problem, programs.dense, plain
    )
    for peer in peers:
        builds[peer.name] = functools.partial(peer.build, problem)
    return builds


def _measured(case, builds, want, repeats, dtype, say) -> list[Row]:
    """Checks everything, says so, then times what is right."""
    rows, right = {}, {}
    for name, build in builds.items():
        try:
            program = build()
            error = weights.relative_error(program.first(), want)
        except Exception as reason:  # a compiler's or a peer's error can be of any type
            rows[name] = Row(case, name, f"absent: {_first_line(reason)}")
            continue
        status = "measured" if error <= TOLERANCES[dtype] else "wrong"
        rows[name] = Row(case, name, status, error, None, program.sets, program.nbytes)
        if status == "measured":
            right[name] = program
    found = ", ".join(
        f"{name} {row.status if row.error is None else format(row.error, '.1e')}"
        + (" WRONG" if row.status == "wrong" else "")
        for name, row in rows.items()
    )
    say(f"{case.name}: error of |x||W| (at most {TOLERANCES[dtype]:.1e}): {found}")
    for name, program in list(right.items()):
        try:
            program.run()
        except Exception as reason:
            rows[name] = rows[name]._replace(status=f"absent: {_first_line(reason)}")
            del right[name]
    for name, samples in timing.times(right, repeats).items():
        rows[name] = rows[name]._replace(
            seconds=timing.spread(samples), samples=tuple(samples.tolist())
        )
    return list(rows.values())


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
