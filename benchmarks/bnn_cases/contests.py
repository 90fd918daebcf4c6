"""Voters of jeff and of its peers, in turns, on one core: time and memory."""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from bnn_cases import subject
from bnn_cases.peak import peak_growth
from bnn_cases.peers import Peers
from jeff import dm_bnn
from pallas_kernels import timing

__all__ = [
    "Built",
    "Cell",
    "Settings",
    "Timed",
    "build",
    "cells",
    "measure",
    "program",
    "trees",
]

MODES = (
    "naive", "naive16", "hybrid", "tree", "tree_shared", "lrt", "lrt16", "flipout"
)  # fmt: skip
"""jeff's contenders; those named 16 draw numbers of 16 random bits."""
PEERS = ("bayesian_torch", "bayesian_torch_flipout", "blitz", "torch_lrt")
"""The others."""
_ROWS_TOGETHER = 256  # of LRT: voters times rows, so that they stay in the cache
_MANY = 1000  # voters, at which slow contenders run at one row or not at all
_MANY_ROWS = 64  # beyond which trees and LRT in torch do not run with so many voters


class Settings(NamedTuple):
    """What is timed.

    Attributes:
      rows: Numbers of inputs at a time.
      voters: Numbers of voters.
      repeats: Timed runs of every contender.
      seconds: How long a run takes at least.
      seed: Of weights, inputs and draws.
    """

    rows: Sequence[int]
    voters: Sequence[int]
    repeats: int
    seconds: float
    seed: int


class Cell(NamedTuple):
    """One contest.

    Attributes:
      rows: Inputs at a time.
      voters: Of each.
      modes: jeff's contenders.
      peers: The others, if they are there.
    """

    rows: int
    voters: int
    modes: tuple[str, ...]
    peers: tuple[str, ...]


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


def cells(settings: Settings) -> Iterator[Cell]:
    """The contests, with what is too slow left out.

    Args:
      settings: What is timed.

    Yields:
      Cells. What draws all weights takes ten times as long at 1,000 voters as at 100:
      of such contenders only naive and bayesian-torch run there, at one row.
    """
    for voters, rows in itertools.product(settings.voters, settings.rows):
        modes, peers = MODES, PEERS
        if voters >= _MANY:
            modes, peers = ("lrt",), ()
            if rows <= _MANY_ROWS:
                modes, peers = ("tree", "tree_shared", "lrt"), ("torch_lrt",)
            if rows == 1:
                modes, peers = ("naive", *modes), ("bayesian_torch", *peers)
        yield Cell(rows, voters, modes, peers)


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
    chunk = {"lrt": max(1, _ROWS_TOGETHER // cell.rows), "flipout": 1}.get(mode)
    return build(mode, x, posterior, cell.voters, chunk=chunk, draw=draw)


def program(run: Callable[[], Any], seconds: float) -> timing.Program:
    """A call as a program that repeats it for some time.

    Args:
      run: The call; it waits for its result.
      seconds: How long a run takes at least, about.

    Returns:
      The program.
    """
    run()  # may compile
    start = time.perf_counter()
    run()
    once = time.perf_counter() - start
    calls = max(1, math.ceil(seconds / once))
    return timing.Program(
        lambda: None, lambda: [run() for _ in range(calls)], calls, 1, 0
    )


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
    built = {mode: contender(mode, cell, x, posterior) for mode in cell.modes}
    programs = {m: program(b.run, settings.seconds) for m, b in built.items()}
    names = [name for name in cell.peers if name in peers.names]
    size = cell.rows, cell.voters
    for name in names:
        programs[name] = peers.program(name, *size, settings.seconds)
    repeats = settings.repeats if cell.voters < _MANY else min(3, settings.repeats)
    seconds = timing.times(programs, repeats)
    peaks = {mode: peak_growth(b.run) for mode, b in built.items()}
    peaks |= {name: peers.peak(name, *size) for name in names}
    return Timed(
        seconds,
        {name: peak for name, peak in peaks.items() if peak is not None},
        {m: b.nbytes for m, b in built.items()},
        {m: b.compile_seconds for m, b in built.items()},
    )
