"""Counting what a program does: arithmetic, random draws and bytes, loops included.

XLA's own cost analysis counts the body of a loop once. Here a loop counts as often as
it runs, and the count is of the program as written, before any fusion. Nothing runs:
the program is traced for shapes only.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from jeff.program import compat, cost, trip_count

__all__ = ["Count", "count", "equation_count"]

_CALLS = compat.CALLS | compat.CUSTOM_DERIVATIVES | {"composite", "custom_vmap_call"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Count:
    """Totals of a program or of a part of one. Counts add, and multiply by an integer.

    Every element of every equation counts, index arithmetic and integers included. A
    complex product counts as four products and two sums of reals.

    Attributes:
      multiplications: Products of two numbers, those of `macs` included.
      additions: Sums and differences of two numbers; a sum of n numbers has n - 1.
      macs: Multiply-accumulates, the products of dense layers, convolutions and
        other contractions. Taps that fall on padding count, the zeros that a
        transposed convolution inserts do not. A ragged product counts every row.
      random_draws: Random words drawn from keys (elements of ``random_bits``).
      bytes_read: Bytes by dtype: every equation reads its inputs (a look-up what it
        looks up), as if nothing were fused. Reshapes and the like are free, literals
        too. In a Pallas kernel only what is loaded from references counts.
      bytes_written: Bytes by dtype: every equation writes its outputs (an update what
        it updates).
      other: Elements by primitive, for operations that are neither: comparisons,
        divisions, exponentials, collectives.
      unknown: Executions by primitive, for primitives whose arithmetic this module
        does not know; of those only the bytes are counted.
      notes: Where a total is a bound or a guess: loops whose number of iterations
        depends on data (counted once, or as often as their bound says), branches (the
        largest of each total is taken).

    Examples:
      >>> layer = Count(multiplications=64, macs=64, other={"exp": 8})
      >>> (3 * layer + Count(additions=1)).macs, (3 * layer).other
      (192, {'exp': 24})
    """

    multiplications: int = 0
    additions: int = 0
    macs: int = 0
    random_draws: int = 0
    bytes_read: Mapping[str, int] = dataclasses.field(default_factory=dict)
    bytes_written: Mapping[str, int] = dataclasses.field(default_factory=dict)
    other: Mapping[str, int] = dataclasses.field(default_factory=dict)
    unknown: Mapping[str, int] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __add__(self, more: "Count") -> "Count":
        """Totals of two parts; notes are kept once."""
        return _combined([self, more], sum)

    def __mul__(self, times: int) -> "Count":
        """Totals of a part that runs `times` times."""
        return Count(
            **{field: _times(value, times) for field, value in vars(self).items()}
        )

    __rmul__ = __mul__

    def __str__(self) -> str:
        """A table, one line for each total."""
        rows = []
        for field, value in vars(self).items():
            label = field.replace("_", " ")
            if isinstance(value, int):
                rows.append(f"{label:<16}{value:>16,}")
            elif isinstance(value, tuple):
                rows.extend(f"{'note':<16}{note}" for note in value)
            elif value or field.startswith("bytes"):
                parts = ", ".join(f"{k} {v:,}" for k, v in sorted(value.items()))
                rows.append(f"{label:<16}{sum(value.values()):>16,}  {parts}".rstrip())
        return "\n".join(rows)


def count(
    fn: Callable[..., Any], *args: Any, axis_sizes: Mapping[str, int] | None = None
) -> Count:
    """Counts what ``fn(*args)`` does.

    Args:
      fn: Any function that JAX can trace.
      *args: Its arguments: pytrees of arrays or of ``jax.ShapeDtypeStruct``.
      axis_sizes: Sizes of named axes that `fn` uses and does not bind itself; the count
        is then that of one participant.

    Returns:
      The totals. A scan counts its body times its length, a ``while`` times its number
      of iterations if a counter with known start, step and bound decides it (its test
      once more than its body), a ``pallas_call`` times its grid, a ``shard_map`` times
      its devices.

    Raises:
      ValueError: If `fn` uses a named axis that is not bound, or a size is not a
        positive integer.

    Examples:
      >>> import jax
      >>> w = jax.ShapeDtypeStruct((3, 8, 8), "float32")
      >>> x = jax.ShapeDtypeStruct((4, 8), "float32")
      >>> def stack(w, x):
      ...     return jax.lax.scan(lambda x, w: (x @ w, None), x, w)[0]
      >>> print(count(stack, w, x))
      multiplications            768
      additions                  672
      macs                       768
      random draws                 0
      bytes read               1,152  float32 1,152
      bytes written              384  float32 384
    """
    axis_env = list((axis_sizes or {}).items())
    for name, size in axis_env:
        if not isinstance(size, int) or size < 1:
            raise ValueError(
                f"axis_sizes: axis {name!r} needs a positive integer, got {size!r}"
            )
    try:
        jaxpr = jax.make_jaxpr(fn, axis_env=axis_env)(*args)
    except NameError as error:
        if "unbound axis name" not in str(error):
            raise
        raise ValueError(
            f"the program uses a named axis that is not bound here ({error}); "
            "pass its size, for example axis_sizes={'i': 4}"
        ) from error
    return _walk(jaxpr, [None] * len(jaxpr.jaxpr.invars), in_kernel=False)


def equation_count(eqn: Any) -> Count:
    """Counts one equation of a traced program, the programs inside it included.

    Args:
      eqn: An equation (``jaxpr.eqns[i]``).

    Returns:
      Its totals, as those of `count`.

    Examples:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> jaxpr = jax.make_jaxpr(jnp.dot)(jnp.ones((4, 8)), jnp.ones((8, 2)))
      >>> equation_count(jaxpr.eqns[0]).macs
      64
    """
    known = trip_count.Known()
    return _equation(eqn, known, in_kernel=False)


def _walk(jaxpr: Any, inputs: Sequence[int | None], *, in_kernel: bool) -> Count:
    known = trip_count.Known(jaxpr, inputs)
    counts = []
    for eqn in compat.open_jaxpr(jaxpr).eqns:
        counts.append(_equation(eqn, known, in_kernel=in_kernel))
        known.read(eqn)
    return _combined(counts, sum)


def _equation(eqn: Any, known: trip_count.Known, *, in_kernel: bool) -> Count:
    name, params = eqn.primitive.name, eqn.params
    values = known.values(eqn.invars)
    if name in _CALLS:
        return _walk(compat.inner_jaxpr(eqn), values, in_kernel=in_kernel)
    if name == "scan":
        consts, _ = compat.scan_layout(eqn)
        constant = values[:consts] + [None] * (len(values) - consts)
        body = _walk(params["jaxpr"], constant, in_kernel=in_kernel)
        return body * params["length"]
    if name == "while":
        return _while(eqn, known, in_kernel=in_kernel)
    if name == "cond":
        branches = [
            _walk(branch, values[1:], in_kernel=in_kernel)
            for branch in params["branches"]
        ]
        note = f"cond: the larger of {len(branches)} branches, total by total"
        return _combined(branches, max) + Count(notes=(note,))
    if name == "pallas_call":
        return _pallas_call(eqn)
    if name == "shard_map":
        devices = 1
        for axis in params["newly_manual_axes"]:
            devices *= params["mesh"].shape[axis]
        return _walk(params["jaxpr"], values, in_kernel=in_kernel) * devices
    read, written = cost.bytes_moved(eqn, in_kernel=in_kernel)
    arithmetic = cost.arithmetic(eqn)
    if arithmetic is None:
        return Count(bytes_read=read, bytes_written=written, unknown={name: 1})
    return Count(bytes_read=read, bytes_written=written, **arithmetic)


def _while(eqn: Any, known: trip_count.Known, *, in_kernel: bool) -> Count:
    trips, exact = trip_count.of_while(eqn, known)
    inputs = trip_count.while_inputs(eqn, known)
    test = _walk(eqn.params["cond_jaxpr"], inputs.test, in_kernel=in_kernel)
    body = _walk(eqn.params["body_jaxpr"], inputs.body, in_kernel=in_kernel)
    notes = ()
    if trips is None:
        trips = 1
        notes = ("while: number of iterations depends on data; counted as one",)
    elif not exact:
        notes = (f"while: at most {trips} iterations; counted as {trips}",)
    return body * trips + test * (trips + 1) + Count(notes=notes)


def _pallas_call(eqn: Any) -> Count:
    steps, notes = 1, ()
    for size in eqn.params["grid_mapping"].grid:
        if isinstance(size, int):
            steps *= size
        else:
            notes = ("pallas_call: a grid size depends on data; counted as one",)
    kernel = eqn.params["jaxpr"]
    inputs = [None] * len(compat.open_jaxpr(kernel).invars)
    return _walk(kernel, inputs, in_kernel=True) * steps + Count(notes=notes)


def _combined(counts: Sequence[Count], combine: Callable[..., int]) -> Count:
    """Total by total: `combine` (sum or max) of the totals of `counts`."""
    if not counts:
        return Count()
    result = {}
    for field in dataclasses.fields(Count):
        values = [getattr(c, field.name) for c in counts]
        if isinstance(values[0], int):
            result[field.name] = combine(values)
        elif isinstance(values[0], tuple):
            result[field.name] = tuple(dict.fromkeys(n for v in values for n in v))
        else:
            names = dict.fromkeys(name for v in values for name in v)
            result[field.name] = {
                name: combine([v.get(name, 0) for v in values]) for name in names
            }
    return Count(**result)


def _times(value: Any, times: int) -> Any:
    if isinstance(value, int):
        return value * times
    if isinstance(value, tuple):
        return value
    return {name: n * times for name, n in value.items() if n * times}
