"""How fast generators make normal numbers, alone and inside a network's voters."""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bnn_cases import contests, subject
from hwsim import rng
from jeff import dm_bnn
from pallas_kernels import timing

__all__ = ["GENERATORS", "Draw", "Speeds", "measure"]

Draw = Callable[[jax.Array, int], jax.Array]

_ROWS = 20  # keys of a program; the product draws a column under each
_LONG = 2**17  # numbers of one key
_IN_VOTERS = ("normal32", "normal16", "normal8")


def _half(key: jax.Array, count: int) -> jax.Array:
    return jax.random.normal(key, (count,), jnp.bfloat16).astype(jnp.float32)


GENERATORS: dict[str, Draw] = {
    "normal32": lambda key, count: jax.random.normal(key, (count,), jnp.float32),
    "jax_bfloat16": _half,
    "normal16": dm_bnn.normal16,
    "normal8": dm_bnn.normal8,
    "clt2": rng.clt.normal(rng.Clt(terms=2)),
    "clt": rng.clt.normal(),
    "rlf": rng.rlf.normal(),
    "wallace": rng.wallace.normal(),
}
"""By name: JAX's normal numbers of 32 bits and in bfloat16, those of `jeff.dm_bnn` of
16 and 8 bits, simulated hardware (sums of 2 and of 12 words, counts, a pool)."""


class Speeds(NamedTuple):
    """What was found.

    Attributes:
      rows: By generator, ``[repeats]`` seconds per number, a key for 784 of them.
      long: Likewise, a key for 131,072.
      voters: By generator, ``[repeats]`` seconds of 100 hybrid voters of one row.
    """

    rows: dict[str, np.ndarray]
    long: dict[str, np.ndarray]
    voters: dict[str, np.ndarray]


def measure(settings: contests.Settings, posterior: Any) -> Speeds:
    """Times all generators.

    Args:
      settings: Of the benchmark.
      posterior: Of `subject.apply`.

    Returns:
      What was found.
    """
    shapes = {"rows": (_ROWS, subject.SIZES[0]), "long": (1, _LONG)}
    found = {}
    for kind, shape in shapes.items():
        programs = {}
        for name, draw in GENERATORS.items():
            one = contests.program(_reduction(draw, *shape), settings.seconds)
            programs[name] = one._replace(products=one.products * shape[0] * shape[1])
        found[kind] = timing.times(programs, settings.repeats, warm_up=False)
    x = subject.inputs(settings.seed, 1)
    voters = max(v for v in settings.voters if v <= 100)
    programs = {}
    for name in _IN_VOTERS:
        built = contests.build("hybrid", x, posterior, voters, draw=GENERATORS[name])
        programs[name] = contests.program(built.run, settings.seconds)
    found["voters"] = timing.times(programs, settings.repeats, warm_up=False)
    return Speeds(**found)


def _reduction(draw: Draw, rows: int, count: int) -> Callable[[], Any]:
    """Draws rows and multiplies them with something, as a voter would."""

    @jax.jit
    def run(key, weights):
        keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(jnp.arange(rows))
        noise = jax.vmap(lambda key: draw(key, count))(keys)
        return jnp.einsum("rk,k->r", noise, weights)

    keys = itertools.cycle(list(jax.random.split(jax.random.key(3), 16)))
    weights = jnp.ones(count)
    return lambda: jax.block_until_ready(run(next(keys), weights))
