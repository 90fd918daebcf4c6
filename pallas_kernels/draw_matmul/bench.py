"""The benchmark of products with drawn matrices: check, then time, beside the draws.

Per product and implementation:

1. the error relative to ``|x| @ (|mean| + std * |H|)`` of the first, the middle and the
   last voter, against float64 and the noise that JAX draws; an implementation beyond
   the tolerance is reported as wrong and never timed;
2. the time per product of a compiled chain of them (`timing.chain`), each on a row that
   depends on all voters of the one before, so that none can be left out.

Beside them stand ``reference`` (all noise is stored) and what there is to reach: the
same random ``words``, ``jax.random.bits`` of the same keys, folded by exclusive or and
not stored, and the same ``normals``, summed.
"""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from pallas_kernels import threefry, timing
from pallas_kernels.draw_matmul.op import draw_matmul, resolve
from pallas_kernels.draw_matmul.options import normal
from pallas_kernels.draw_matmul.workload import Case, Settings, cases

__all__ = ["DRAWS", "TOLERANCE", "Draw", "Multiply", "Report", "Row", "run"]

TOLERANCE = 1e-5
"""Largest error relative to ``|x| @ (|mean| + std * |H|)``."""

DRAWS = ("words", "normals")
"""Programs that draw and multiply nothing."""


class Row(NamedTuple):
    """One line of the result.

    Attributes:
      case: The product.
      implementation: ``"mosaic_gpu"``, ``"xla"``, ``"reference"``, or one of `DRAWS`.
      status: ``"measured"``, ``"wrong"``, or ``"absent: "`` and the reason.
      error: Largest relative error; ``None`` if absent or of `DRAWS`.
      seconds: Per product; ``None`` unless measured.
      samples: Seconds of every timed run, per product.
    """

    case: Case
    implementation: str
    status: str
    error: float | None = None
    seconds: timing.Spread | None = None
    samples: tuple[float, ...] = ()


class Report(NamedTuple):
    """Everything a benchmark found.

    Attributes:
      settings: What was asked for.
      rows: The results; of every product the implementation that `draw_matmul` picks by
        itself is first.
      backend: ``"cpu"`` or ``"gpu"``.
      seconds: Wall-clock time of the benchmark.
    """

    settings: Settings
    rows: tuple[Row, ...]
    backend: str
    seconds: float


def run(
    settings: Settings,
    *,
    seed: int = 0,
    say: Callable[[str], None] = lambda text: None,
    advance: Callable[[], None] = lambda: None,
) -> Report:
    """Checks and times every product.

    Args:
      settings: What is timed, and how.
      seed: Of keys, weights and x.
      say: Told one line per product, its errors, before any of it is timed.
      advance: Called after every product.

    Returns:
      The report.

    Examples:
      >>> report = run(Settings(shapes=((20, 6, 4),), repeats=3, products=1))
      >>> [(row.implementation, row.status) for row in report.rows[:2]]
      [('xla', 'measured'), ('reference', 'measured')]
    """
    start = time.perf_counter()
    rows = []
    for index, case in enumerate(cases(settings)):
        rows += _measured(case, _operands(case, (seed, index)), settings, say)
        advance()
    seconds = time.perf_counter() - start
    return Report(settings, tuple(rows), jax.default_backend(), seconds)


class _Operands(NamedTuple):
    x: jax.Array  # [1, K]
    words: jax.Array  # of the keys, [T, 2]
    mean: jax.Array
    std: jax.Array

    @property
    def keys(self):
        return jax.random.wrap_key_data(self.words)


def _operands(case: Case, seed) -> _Operands:
    rng = np.random.default_rng(seed)
    key = jax.random.key(int(rng.integers(2**31)))
    matrix = case.size, case.columns
    return _Operands(
        x=jnp.asarray(rng.normal(size=(1, case.size)), jnp.float32),
        words=jax.random.key_data(jax.random.split(key, case.voters)),
        mean=jnp.asarray(rng.normal(size=matrix), jnp.float32),
        std=jnp.asarray(rng.uniform(0.1, 1, matrix), jnp.float32),
    )


def _measured(case, operands: _Operands, settings: Settings, say) -> list[Row]:
    """Checks everything, says so, then times what is right."""
    by_itself = resolve(operands.keys, operands.x[0], operands.mean, operands.std)
    names = dict.fromkeys((by_itself, "xla", "reference"))
    rows, right = {}, {}
    for name in names:
        try:
            error = _error(operands, name)
        except Exception as reason:  # a compiler's error can be of any type
            first = (str(reason).strip() or type(reason).__name__).splitlines()[0]
            rows[name] = Row(case, name, f"absent: {first}")
            continue
        status = "measured" if error <= TOLERANCE else "wrong"
        rows[name] = Row(case, name, status, error)
        if status == "measured":
            right[name] = _program(operands, Multiply(name), settings.products)
    found = ", ".join(
        f"{name} {row.status if row.error is None else format(row.error, '.1e')}"
        + (" WRONG" if row.status == "wrong" else "")
        for name, row in rows.items()
    )
    say(f"{case.name}: relative error (at most {TOLERANCE:.1e}): {found}")
    for name in DRAWS:
        rows[name] = Row(case, name, "measured")
        right[name] = _program(operands, Draw(name), settings.products)
    for name, samples in timing.times(right, settings.repeats).items():
        rows[name] = rows[name]._replace(
            seconds=timing.spread(samples), samples=tuple(samples.tolist())
        )
    return list(rows.values())


def _error(operands: _Operands, name: str) -> float:
    """The largest relative error of three voters; infinite where one is no number."""
    x, _, mean, std = (np.asarray(a, np.float64) for a in operands)
    product = jax.jit(functools.partial(draw_matmul, implementation=name))
    got = product(operands.keys, operands.x[0], operands.mean, operands.std)
    worst = 0.0
    for voter in {0, len(got) // 2, len(got) - 1}:
        noise = np.asarray(_noise(operands.keys[voter], *mean.shape), np.float64)
        want = x[0] @ (mean + std * noise)
        size = np.abs(x[0]) @ (np.abs(mean) + std * np.abs(noise))
        error = np.max(np.abs(np.asarray(got[voter], np.float64) - want) / size)
        worst = max(worst, np.nan_to_num(float(error), nan=np.inf))
    return worst


@functools.partial(jax.jit, static_argnums=(1, 2))
def _noise(key, size, columns):
    """``[K, N]`` as JAX draws it."""
    rows = jax.vmap(lambda n: jax.random.fold_in(key, n))(jnp.arange(columns))
    return jax.vmap(lambda row: jax.random.normal(row, (size,)))(rows).T


@dataclasses.dataclass(frozen=True)
class Multiply:
    """``multiply(x, words, mean, std)``, the mean of all voters; hashable.

    Attributes:
      implementation: As in `draw_matmul`.
    """

    implementation: str

    def __call__(self, x, words, mean, std):
        """The mean of the voters' products, ``[1, N]``."""
        keys = jax.random.wrap_key_data(words)
        y = draw_matmul(keys, x[0], mean, std, implementation=self.implementation)
        return y.mean(0, keepdims=True)


@dataclasses.dataclass(frozen=True)
class Draw:
    """The draws of a product and nothing else; hashable.

    Attributes:
      kind: Of `DRAWS`.
    """

    kind: str

    def __call__(self, x, words, mean, std):
        """All words of a column folded to one, or its normals added, ``[1, N]``."""
        del std
        size, columns = mean.shape
        numbers = jnp.arange(columns, dtype=jnp.uint32)

        def column(key, n):
            row = threefry.fold_in(key, n)
            if self.kind == "normals":
                return normal(row, size).sum()
            word = threefry.words(row, size)
            return lax.reduce(word, np.uint32(0), lax.bitwise_xor, (0,))

        def voter(key):
            return jax.vmap(lambda n: column(key, n))(numbers)

        keys = jax.random.wrap_key_data(words)
        if jax.default_backend() == "cpu":  # faster than storing all, as XLA would
            made = lax.map(voter, keys)
        else:
            made = jax.vmap(voter)(keys)
        if self.kind == "words":
            made = lax.reduce(made, np.uint32(0), lax.bitwise_xor, (0,))[None]
            made = lax.shift_right_logical(made, np.uint32(9)).astype(jnp.float32)
        return made.sum(0, keepdims=True).astype(x.dtype)


def _program(operands: _Operands, multiply: Any, products: int) -> timing.Program:
    """A chain of products: a compiled loop on a GPU, calls from Python on a CPU.

    In the body of a compiled loop XLA's programs for CPUs run on one thread.
    """
    on_cpu = jax.default_backend() == "cpu"
    calls, rounds = (products, 1) if on_cpu else (1, products)
    x, *weights = operands

    def chained():
        made = x
        for _ in range(calls):
            made = timing.chain(
                made, (tuple(weights),), multiply=multiply, rounds=rounds
            )
        return jax.block_until_ready(made)

    return timing.Program(
        first=lambda: jax.jit(multiply)(*operands),
        run=chained,
        products=products,
        sets=1,
        nbytes=sum(a.nbytes for a in weights),
    )
