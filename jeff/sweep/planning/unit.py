"""The compiled unit of a sweep: some trials of one point, over all the data.

A unit is a function of a key, a rate, a design, the numbers of its trials and the data.
It runs on one device and knows of no other, so who calls it cannot change its bits.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np

from jeff import tree
from jeff.sweep.planning.arguments import Sweep
from jeff.sweep.planning.shapes import batch_shape, point_shapes, shape_of

__all__ = [
    "Program",
    "TracedTrial",
    "compiled",
    "compiler_options",
    "trace_draw",
    "trace_evaluate",
    "unit_function",
]


class Program(NamedTuple):
    """A traced function whose captured arrays are arguments, not part of the code.

    Attributes:
      jaxpr: The closed jaxpr, as `jax.make_jaxpr` gives it.
      outputs: Shapes and dtypes that it returns, as a pytree.
    """

    jaxpr: Any
    outputs: Any

    def __call__(self, consts: Any, *arguments: Any) -> Any:
        """Runs it.

        Args:
          consts: The captured arrays, `jaxpr.consts` or what stands for them.
          *arguments: As traced.

        Returns:
          A pytree like `outputs`.
        """
        closed = jex.ClosedJaxpr(self.jaxpr.jaxpr, consts)
        flat = jex.jaxpr_as_fun(closed)(*jax.tree.leaves(arguments))
        return jax.tree.unflatten(jax.tree.structure(self.outputs), flat)


class TracedTrial(NamedTuple):
    """A trial's two functions, traced for one size of batches.

    Attributes:
      draw: From key, rate, design and the trial's number to the faulty pytree.
      evaluate: From the faulty pytree and a batch to statistics.
      batch: The size of batches.
      examples: Examples of the sweep.
    """

    draw: Program
    evaluate: Program
    batch: int
    examples: int

    @property
    def batches(self) -> int:
        """How many batches hold all examples."""
        return -(-self.examples // self.batch)

    @property
    def consts(self) -> tuple[Any, Any]:
        """Arrays that the two functions captured."""
        return self.draw.jaxpr.consts, self.evaluate.jaxpr.consts


def unit_function(traced: TracedTrial, group: int) -> Callable[..., Any]:
    """The function of a unit, to be compiled.

    Groups are of one size, so that every trial is computed by the same program: the
    last one is filled up with the last trial, which is then dropped.

    Args:
      traced: The trial.
      group: Trials at a time; with 1 no batch axis is added.

    Returns:
      ``unit(consts, key, rate, design, numbers, data) -> stats``: the captured arrays
      as `TracedTrial.consts`, one rate and one design, the numbers of the trials (int32
      ``[unit]``), and a `jeff.sweep.Batch` of all examples, each array
      ``[batches, batch, ...]``; each array of the statistics is ``[unit, ...]``.
    """

    def unit(consts, key, rate, design, numbers, data):
        for_draw, for_evaluate = consts

        def one(number):
            faulty = traced.draw(for_draw, key, rate, design, number)

            def add(total, batch):
                stats = traced.evaluate(for_evaluate, faulty, batch)
                return jax.tree.map(jnp.add, total, stats), None

            if traced.batches == 1:
                first = jax.tree.map(lambda a: a[0], data)
                return traced.evaluate(for_evaluate, faulty, first)
            zeros = jax.tree.map(
                lambda s: jnp.zeros(s.shape, s.dtype), traced.evaluate.outputs
            )
            return jax.lax.scan(add, zeros, data)[0]

        trials = len(numbers)
        if group == 1:
            return jax.lax.map(one, numbers)
        if group == trials:
            return jax.vmap(one)(numbers)
        filled = np.minimum(np.arange(-(-trials // group) * group), trials - 1)
        stats = jax.lax.map(one, numbers[filled], batch_size=group)
        return jax.tree.map(lambda a: a[:trials], stats)

    return unit


def trace_draw(sweep: Sweep) -> Program:
    """Traces what is drawn for one trial.

    Args:
      sweep: The sweep.

    Returns:
      A function of key, rate, design and the number of the trial.
    """

    def draw(key, rate, design, number):
        return sweep.trial.draw(jax.random.fold_in(key, number), rate, design)

    number = jax.ShapeDtypeStruct((), jnp.int32)
    made = jax.make_jaxpr(draw, return_shape=True)(*point_shapes(sweep), number)
    return Program(*made)


def trace_evaluate(sweep: Sweep, draw: Program, batch: int) -> TracedTrial:
    """Traces what is counted of one trial, for one size of batches.

    Args:
      sweep: The sweep.
      draw: From `trace_draw`.
      batch: The size.

    Returns:
      Both functions.

    Raises:
      TypeError: If the statistics are not arrays of numbers that can be summed.
      ValueError: If their shapes depend on the size of the batch, or two of them have
        one name.
    """
    made = _traced(sweep, draw, batch)
    _check_stats(made.outputs)
    sizes = {n for s in jax.tree.leaves(made.outputs) for n in s.shape}
    if any(n % batch == 0 for n in sizes):  # maybe by chance
        other = tree.flatten(_traced(sweep, draw, batch + 1).outputs)[0]
        for name, stat in tree.flatten(made.outputs)[0].items():
            if other[name].shape != stat.shape:
                raise ValueError(
                    f"statistic {name!r} has shape {stat.shape} for {batch} examples "
                    f"and {other[name].shape} for {batch + 1}; sum it over the batch"
                )
    return TracedTrial(draw, made, batch, sweep.examples)


def compiled(
    sweep: Sweep, traced: TracedTrial, group: int, unit: int, device: Any
) -> Any:
    """Compiles a unit for one device.

    Args:
      sweep: The sweep.
      traced: Its trial.
      group: Trials at a time.
      unit: Trials of a unit.
      device: The device, one of this process.

    Returns:
      The executable; it takes the arguments of `unit_function`, all on the device.
    """
    place = jax.sharding.SingleDeviceSharding(device)
    consts = jax.tree.map(jnp.asarray, traced.consts)
    arguments = (
        jax.tree.map(lambda a: shape_of(a, (), 0, place), consts),
        *point_shapes(sweep, place),
        jax.ShapeDtypeStruct((unit,), jnp.int32, sharding=place),
        batch_shape(sweep, (traced.batches, traced.batch), place),
    )
    run = jax.jit(unit_function(traced, group))
    return run.lower(*arguments).compile(compiler_options=compiler_options(device))


def compiler_options(device: Any) -> dict[str, bool | str]:
    """Options that units are compiled with.

    Products whose algorithm is chosen by timing could differ from one compilation to
    the next, that is between processes and a sweep and its resumption.

    Args:
      device: The device.

    Returns:
      Values by name.

    Examples:
      >>> import types
      >>> compiler_options(types.SimpleNamespace(platform="gpu"))
      {'xla_gpu_deterministic_ops': True}
    """
    return {"xla_gpu_deterministic_ops": True} if device.platform == "gpu" else {}


def _traced(sweep: Sweep, draw: Program, batch: int) -> Program:
    make = jax.make_jaxpr(sweep.trial.evaluate, return_shape=True)
    return Program(*make(draw.outputs, batch_shape(sweep, (batch,))))


def _check_stats(stats: Any) -> None:
    leaves = tree.flatten(stats)[0]
    if not leaves:
        raise TypeError("evaluate must return at least one array of statistics")
    for name, stat in leaves.items():
        dtype = np.dtype(stat.dtype) if isinstance(stat.dtype, np.dtype) else None
        if dtype is None or not jnp.issubdtype(dtype, jnp.number):
            raise TypeError(
                f"statistic {name!r} must be of a number dtype, so that it can be "
                f"summed over batches; it is {stat.dtype}"
            )
