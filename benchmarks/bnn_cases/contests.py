"""Voters of jeff and of its peers, in turns, on one core: time and memory."""

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from bnn_cases import subject
from bnn_cases.peak import peak_growth
from bnn_cases.peers import Peers
from jeff import dm_bnn
from pallas_kernels import timing

__all__ = [
    "FEWEST",
    "MODES",
    "PEERS",
    "Built",
    "Cell",
    "Settings",
    "Timed",
    "build",
    "cells",
    "measure",
    "program",
    "rounds",
    "trees",
]

MODES = (
    "naive", "naive16", "hybrid", "tree", "tree_shared", "lrt", "lrt16", "flipout"
)  # fmt: skip
"""jeff's contenders; those named 16 draw numbers of 16 random bits."""
PEERS = ("bayesian_torch", "bayesian_torch_flipout", "blitz", "torch_lrt")
"""The others."""
FEWEST = 2
"""Rounds, however long they take."""


class Settings(NamedTuple):
    """What is timed.

    Attributes:
      rows: Numbers of inputs at a time.
      voters: Numbers of voters.
      repeats: Rounds, in which every contender runs once, at most.
      seconds: How long a run takes at least.
      seed: Of weights, inputs and draws.
      cell_seconds: How long the rounds of a contest may take; `FEWEST` are run anyway.
    """

    rows: Sequence[int]
    voters: Sequence[int]
    repeats: int
    seconds: float
    seed: int
    cell_seconds: float = math.inf


class Cell(NamedTuple):
    """One contest, of all contenders.

    Attributes:
      rows: Inputs at a time.
      voters: Of each contender.
    """

    rows: int
    voters: int


class Built(NamedTuple):
    """A compiled call of `jeff.dm_bnn.predict`.

    Attributes:
      run: Makes the call with the next key, and waits.
      compile_seconds: Tracing and compiling.
      nbytes: Intermediate results and outputs, as the compiler plans them.
    """

    run: Callable[[], Any]
    compile_seconds: float
    nbytes: int


def trees(voters: int) -> tuple[int, int, int]:
    """The tree of a number of voters: the last level never branches.

    Args:
      voters: A multiple of 10.

    Returns:
      Branches at each level: ``(10, 10, 1)`` for 100, for example.

    Examples:
      >>> trees(10), trees(100), trees(1000)
      ((5, 2, 1), (10, 10, 1), (100, 10, 1))
    """
    second = 2 if voters < 100 else 10
    if voters % second:
        raise ValueError(f"voters must be a multiple of {second}, got {voters}")
    return voters // second, second, 1


def cells(settings: Settings) -> list[Cell]:
    """The contests: every number of rows with every number of voters.

    Args:
      settings: What is timed.

    Returns:
      Cells, those of few voters first.
    """
    sizes = itertools.product(settings.voters, settings.rows)
    return [Cell(rows, voters) for voters, rows in sizes]


def build(mode: str, x: np.ndarray, posterior: Any, voters: Any, **options) -> Built:
    """Compiles a call.

    Args:
      mode: Of `jeff.dm_bnn.predict`.
      x: Inputs.
      posterior: Of `subject.apply`.
      voters: Branches.
      **options: Of `jeff.dm_bnn.predict`.

    Returns:
      The call.
    """

    def call(key, posterior, x):
        return dm_bnn.predict(
            subject.apply, posterior, x, key, voters=voters, mode=mode, **options
        )

    keys = itertools.cycle(list(jax.random.split(jax.random.key(7), 16)))
    start = time.perf_counter()
    compiled = jax.jit(call).lower(next(keys), posterior, x).compile()
    seconds = time.perf_counter() - start
    memory = compiled.memory_analysis()

    def run():
        return jax.block_until_ready(compiled(next(keys), posterior, x))

    nbytes = memory.temp_size_in_bytes + memory.output_size_in_bytes
    return Built(run, seconds, nbytes)


def contender(mode: str, cell: Cell, x: np.ndarray, posterior: Any) -> Built:
    """A contender of jeff, compiled."""
    draw = dm_bnn.normal16 if mode.endswith("16") else None
    mode = mode.removesuffix("16")
    if mode in ("tree", "tree_shared"):
        shared = mode == "tree_shared"
        return build("best", x, posterior, trees(cell.voters), shared=shared)
    return build(mode, x, posterior, cell.voters, draw=draw)


def program(
    run: Callable[[], Any], seconds: float, once: float | None = None
) -> timing.Program:
    """A call as a program that repeats it for some time.

    Args:
      run: The call; it waits for its result.
      seconds: How long a run takes at least, about.
      once: How long a call takes; if unknown, it is made twice to see.

    Returns:
      The program.
    """
    if once is None:
        run()  # may compile
        start = time.perf_counter()
        run()
        once = time.perf_counter() - start
    calls = max(1, math.ceil(seconds / once))
    return timing.Program(
        lambda: None, lambda: [run() for _ in range(calls)], calls, 1, 0
    )


def rounds(
    programs: Mapping[str, timing.Program], repeats: int, seconds: float
) -> dict[str, np.ndarray]:
    """Times programs in turns, in as many rounds as there is time for.

    Args:
      programs: What to time, by name; all have run before.
      repeats: Rounds at most.
      seconds: Time for all rounds; what the first one takes says how many fit, and
        `FEWEST` are run anyway.

    Returns:
      By name, ``[rounds]`` seconds per call, the same number for all.
    """
    first = timing.times(programs, 1, warm_up=False)
    spent = sum(first[name][0] * p.products for name, p in programs.items())
    fit = int(min(repeats, seconds / spent))
    count = max(fit, min(repeats, FEWEST))
    turned = dict(reversed(programs.items()))
    others = timing.times(turned, count - 1, warm_up=False)
    return {name: np.append(first[name], others[name]) for name in programs}


class Timed(NamedTuple):
    """What a contest found.

    Attributes:
      seconds: By contender, ``[repeats]`` seconds per call; the peers' among them.
      peak_bytes: By contender, growth of the process during a call.
      compiled_bytes: By contender of jeff, as in `Built`.
      compile_seconds: Likewise.
    """

    seconds: dict[str, np.ndarray]
    peak_bytes: dict[str, int]
    compiled_bytes: dict[str, int]
    compile_seconds: dict[str, float]


def measure(cell: Cell, settings: Settings, posterior: Any, peers: Peers) -> Timed:
    """Times one contest, and measures its memory.

    Args:
      cell: The contest.
      settings: What is timed.
      posterior: Of `subject.apply`.
      peers: The peers' process.

    Returns:
      What was found.
    """
    x = subject.inputs(settings.seed, cell.rows)
    built = {mode: contender(mode, cell, x, posterior) for mode in MODES}
    names = [name for name in PEERS if name in peers.names]
    peaks = {mode: peak_growth(b.run) for mode, b in built.items()}
    peaks |= {name: peers.peak(name, *cell) for name in names}
    programs = {
        mode: program(b.run, settings.seconds, peaks[mode].seconds)
        for mode, b in built.items()
    }
    for name in names:
        once = peaks[name].seconds
        programs[name] = peers.program(name, *cell, settings.seconds, once)
    return Timed(
        rounds(programs, settings.repeats, settings.cell_seconds),
        {name: p.nbytes for name, p in peaks.items() if p.nbytes is not None},
        {m: b.nbytes for m, b in built.items()},
        {m: b.compile_seconds for m, b in built.items()},
    )
