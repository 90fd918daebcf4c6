"""What the benchmark runs: chains of products by each implementation."""

import dataclasses
import functools
import math
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pallas_kernels import bits as layouts
from pallas_kernels import timing
from pallas_kernels.dequant_matmul import tuning, weights
from pallas_kernels.dequant_matmul.config import Config
from pallas_kernels.dequant_matmul.mosaic_gpu import shapes_of
from pallas_kernels.dequant_matmul.op import dequant_matmul, resolve
from pallas_kernels.dequant_matmul.operand import Operand
from pallas_kernels.dequant_matmul.workload import Case

__all__ = [
    "Multiply",
    "Problem",
    "dense",
    "implementations",
    "operand_of",
    "program_of",
    "tune",
]


class Problem(NamedTuple):
    """The operands of one product.

    Attributes:
      case: The product.
      group_size: Rows of the matrix that share a scale.
      x: ``[M, K]``.
      sets: Distinct packed matrices, as ``(packed, scale, zero)``.
      products: Products of a timed run, at least.
    """

    case: Case
    group_size: int
    x: jax.Array
    sets: tuple[tuple[jax.Array, jax.Array, jax.Array], ...]
    products: int


@dataclasses.dataclass(frozen=True)
class Multiply:
    """``multiply(x, packed, scale, zero)`` by one implementation; hashable.

    Attributes:
      implementation: As in `dequant_matmul`, or ``"decode_first"``.
      bits: Width of a code.
      group_size: Rows of the matrix that share a scale.
      config: Settings of the kernel, or ``None``.
    """

    implementation: str
    bits: int
    group_size: int
    config: Config | None = None

    def __call__(self, x, packed, scale, zero):
        """The product, in the dtype of x."""
        options = {"implementation": self.implementation, "config": self.config}
        if self.implementation == "decode_first":
            options = {"implementation": "reference", "decode_dtype": x.dtype}
        return dequant_matmul(
            x, packed, scale, zero,
            bits=self.bits, group_size=self.group_size, **options,
        )  # fmt: skip


def dense(x: jax.Array, weight: jax.Array) -> jax.Array:
    """XLA's own product.

    Args:
      x: ``[M, K]``.
      weight: ``[K, N]``, of the dtype of x.

    Returns:
      ``[M, N]``.
    """
    return jnp.matmul(x, weight)


def program_of(problem: Problem, multiply: Callable, sets: Sequence) -> timing.Program:
    """A chain of products as something to check and time.

    On a CPU the chain is one turn of all sets, called again and again; a call takes far
    less time than a product, and in the body of a compiled loop XLA's products would
    run on one thread. On a GPU it is a compiled loop.

    Args:
      problem: The product.
      multiply: ``multiply(x, *weights)``; hashable.
      sets: The sets of weights to rotate.
    """
    turns = math.ceil(problem.products / len(sets))
    on_cpu = jax.default_backend() == "cpu"
    calls, rounds = (turns, 1) if on_cpu else (1, turns)

    def chained():
        x = problem.x
        for _ in range(calls):
            x = timing.chain(x, sets, multiply=multiply, rounds=rounds)
        return jax.block_until_ready(x)

    return timing.Program(
        first=lambda: jax.jit(multiply)(problem.x, *sets[0]),
        run=chained,
        products=turns * len(sets),
        sets=len(sets),
        nbytes=sum(a.nbytes for a in sets[0]),
    )


def implementations(problem: Problem) -> tuple[str, ...]:
    """Those of jeff worth timing here: what would run by itself, first, and ``xla``.

    Args:
      problem: The product.
    """
    packed, scale, zero = problem.sets[0]
    by_itself = resolve(
        problem.x,
        packed,
        scale,
        zero,
        bits=problem.case.bits,
        group_size=problem.group_size,
    )
    return tuple(dict.fromkeys([by_itself, "xla"]))


@functools.partial(jax.jit, static_argnames=("bits",))
def operand_of(
    packed: jax.Array, scale: jax.Array, zero: jax.Array, *, bits: int
) -> Operand:
    """The matrix that `weights.random_weights` made.

    Args:
      packed: uint32 ``[K * bits / 32, N]``.
      scale: ``[K / group_size, N]``.
      zero: Of its shape.
      bits: Width of a code.
    """
    size = packed.shape[0] * 32 // bits
    return Operand(
        words=packed,
        scale=scale,
        zero=zero,
        bits=bits,
        stride=layouts.default_stride(size),
        size=size,
    )


def tune(
    problem: Problem,
    want: weights.Exact,
    folder: str | os.PathLike,
    *,
    tolerance: float,
    implementation: str = "mosaic_gpu",
    configs: Iterable[Config] | None = None,
) -> tuple[Config, dict[str, Any]]:
    """Searches the kernel's settings for a product and adds them to a table.

    Args:
      problem: The product.
      want: What it must be.
      folder: Where the table of this kind of device is, or will be.
      tolerance: Largest error allowed, as a fraction of the largest entry.
      implementation: ``"mosaic_gpu"``, or ``"interpret"`` to try this without a GPU.
      configs: Settings to try; ``None`` for all that are worth it.

    Returns:
      The fastest right settings, and their entry of the table by its key.

    Raises:
      RuntimeError: If no settings give a right product.
    """
    operand = operand_of(*problem.sets[0], bits=problem.case.bits)
    shapes, dtype = shapes_of(problem.x, operand), problem.x.dtype

    def multiply(config):
        return Multiply(implementation, problem.case.bits, problem.group_size, config)

    def measure(config):
        program = program_of(problem, multiply(config), problem.sets)
        return float(np.median(timing.times({"kernel": program}, 5)["kernel"]))

    entry = tuning.autotune(
        shapes,
        dtype,
        lambda config: jax.jit(multiply(config))(problem.x, *problem.sets[0]),
        jnp.asarray(want.product, jnp.float32),
        tolerance=tolerance,
        measure=measure,
        configs=configs,
    )
    entries = {tuning.key_of(shapes, dtype): entry}
    device = jax.devices()[0].device_kind
    tuning.write_table(tuning.table_path(device, folder), entries)
    return Config(**entry["config"]), entries
