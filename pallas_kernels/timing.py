"""Times of products that follow one another, and of the memory's speed beside them.

Every product is fed with the result of the one before, and every one of them takes
another set of weights, so that none can be left out, moved or served from a cache.
"""

import functools
import math
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

__all__ = [
    "Program",
    "Spread",
    "cache_bytes",
    "chain",
    "sets_needed",
    "spread",
    "streaming_read",
    "times",
]

_GPU_CACHE = 64 * 2**20  # an H100 or H200 has 50 MB (NVIDIA H100 white paper)
_UNKNOWN_CACHE = 32 * 2**20


class Program(NamedTuple):
    """Something to check and then to time.

    Attributes:
      first: Gives the product of the first set of weights, ``[M, N]``.
      run: Runs `products` products, each on the result of the one before, and waits.
      products: How many.
      sets: Distinct sets of weights among them.
      nbytes: Bytes of one set.
    """

    first: Callable[[], Any]
    run: Callable[[], Any]
    products: int
    sets: int
    nbytes: int


class Spread(NamedTuple):
    """Where the middle of some samples is.

    Attributes:
      median: The median.
      lower: First quartile.
      upper: Third quartile.
      low: Lower end of a 95 % interval of the median.
      high: Its upper end.
      trials: Number of samples.
    """

    median: float
    lower: float
    upper: float
    low: float
    high: float
    trials: int


def spread(samples: Sequence[float] | np.ndarray) -> Spread:
    """Median, quartiles, and the interval of the median by order statistics.

    The interval holds for any distribution of independent samples. Fewer than 6 cannot
    give one of 95 %: then it is their range.

    Args:
      samples: At least one number.

    Returns:
      The spread.

    Examples:
      >>> spread(range(1, 21))  # of 20, the 6th and the 15th
      Spread(median=10.5, lower=5.75, upper=15.25, low=6.0, high=15.0, trials=20)
    """
    ordered = np.sort(np.asarray(samples, np.float64))
    n, below, tail = len(ordered), 0, 0.5 ** len(ordered)
    while below < n and tail + math.comb(n, below + 1) * 0.5**n <= 0.025:
        below += 1
        tail += math.comb(n, below) * 0.5**n
    lower, middle, upper = (float(q) for q in np.quantile(ordered, (0.25, 0.5, 0.75)))
    ends = float(ordered[below]), float(ordered[n - 1 - below])
    return Spread(middle, lower, upper, *ends, n)


@functools.partial(jax.jit, static_argnames=("multiply", "rounds"))
def chain(
    x: jax.Array,
    sets: Sequence[tuple[jax.Array, ...]],
    *,
    multiply: Callable[..., jax.Array],
    rounds: int,
) -> jax.Array:
    """Products one after the other, as one compiled program.

    Barriers tie the weights to x: the compiler cannot decode them once for all rounds.

    Args:
      x: ``[M, K]``.
      sets: Weights of one shape.
      multiply: ``multiply(x, *weights)``, ``[M, N]``; hashable.
      rounds: How often all sets have their turn; more than 1 is a compiled loop.

    Returns:
      What would be the next x.
    """
    step = jax.jit(lambda x, *weights: multiply(x, *weights))

    def once(x):
        for weights in sets:
            x, weights = lax.optimization_barrier((x, weights))
            x = _fed(x, lax.optimization_barrier(step(x, *weights)))
        return x

    if rounds == 1:
        return once(x)
    return lax.fori_loop(0, rounds, lambda _, x: once(x), x)


def _fed(x: jax.Array, y: jax.Array) -> jax.Array:
    """The next x: y, cut to the length of x or put in its place.

    Nothing to compute where the matrix is square; else a copy of at most x.
    """
    if y.shape[1] >= x.shape[1]:
        return y[:, : x.shape[1]].astype(x.dtype)
    return lax.dynamic_update_slice(x, y.astype(x.dtype), (0, 0))


def times(
    programs: Mapping[str, Program], repeats: int, *, warm_up: bool = True
) -> dict[str, np.ndarray]:
    """Seconds per product; programs take turns, so that noise hits all alike.

    Every other round is in the opposite order.

    Args:
      programs: What to time, by name.
      repeats: Rounds in which every program has its turn.
      warm_up: Whether every program runs once before that; not needed where all have
        run before.

    Returns:
      ``[repeats]`` seconds of wall-clock time per product, by name.
    """
    if warm_up:
        for program in programs.values():
            program.run()  # compiles
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for i in range(repeats):
        for name, program in list(programs.items())[:: -1 if i % 2 else 1]:
            start = time.perf_counter()
            program.run()
            seconds[name].append((time.perf_counter() - start) / program.products)
    return {name: np.array(s) for name, s in seconds.items()}


def streaming_read(nbytes: int, *, repeats: int, rounds: int) -> Spread:
    """Bytes per second of reading a large array once from end to end.

    The faster of two sums of 32-bit integers, along rows and along columns.

    Args:
      nbytes: Size of the array; at least 4 kB are read.
      repeats: Timed runs.
      rounds: Reads per run.

    Returns:
      Bytes per second.
    """
    width = max(math.isqrt(nbytes // 4) // 32 * 32, 32)
    a = jnp.ones((width, width), jnp.uint32)
    start = jnp.zeros((width,), jnp.uint32)
    best = None
    for axis in (0, 1):
        program = Program(
            first=lambda: start,
            run=lambda axis=axis: jax.block_until_ready(
                _sums(start, a, axis=axis, rounds=rounds)
            ),
            products=rounds,
            sets=1,
            nbytes=a.nbytes,
        )
        found = spread(a.nbytes / times({"read": program}, repeats)["read"])
        if best is None or found.median > best.median:
            best = found
    return best


@functools.partial(jax.jit, static_argnames=("axis", "rounds"))
def _sums(sums, a, *, axis, rounds):
    def once(sums):
        sums, again = lax.optimization_barrier((sums, a))
        return sums + again.sum(axis, dtype=a.dtype)

    if rounds == 1:
        return once(sums)
    return lax.fori_loop(0, rounds, lambda _, sums: once(sums), sums)


def cache_bytes() -> int:
    """Bytes of the last-level cache of the default device, or a guess.

    Known are CPUs under Linux. GPUs are taken to have 64 MiB, more than an H200.
    """
    if jax.default_backend() != "cpu":
        return _GPU_CACHE
    sizes = []
    for file in pathlib.Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = file.read_text().strip()
        unit = {"K": 2**10, "M": 2**20}.get(text[-1:])
        if unit and text[:-1].isdigit():
            sizes.append(int(text[:-1]) * unit)
    return max(sizes, default=_UNKNOWN_CACHE)


def sets_needed(nbytes: int, cache: int, most: int) -> int:
    """Sets of weights that together are twice as large as a cache; at least 3.

    Args:
      nbytes: Bytes of one set.
      cache: Bytes of the cache.
      most: The most sets wanted: every one makes the compiled program longer.

    Examples:
      >>> sets_needed(27_600_000, 60_000_000, 32), sets_needed(100, 60_000_000, 32)
      (5, 32)
    """
    return min(max(math.ceil(2 * cache / nbytes), 3), max(most, 3))
