"""How much memory a unit takes, and how much it may take."""

from collections.abc import Iterator
from typing import Any

from jeff.program import compat

__all__ = [
    "device_budget",
    "largest_bytes",
    "megabytes",
    "temporary_bytes",
    "written_bytes",
]

HOST_BUDGET = 1 << 30
"""Bytes that a unit may take on a device that does not say how much it has."""
_FRACTION = 4  # of a device's memory, one part: data, captured arrays and others


def device_budget(device: Any) -> tuple[int, str]:
    """What the intermediate results of one unit may take.

    Args:
      device: Where it runs.

    Returns:
      Bytes, and a phrase that says where the number is from: a quarter of the device's
      memory if it says how much that is, else 1 GiB.

    Examples:
      >>> class Silent:
      ...     memory_stats = lambda self: None
      >>> device_budget(Silent())
      (1073741824, '1,074 MB, since the device does not say how much memory it has')
    """
    stats = device.memory_stats() or {}
    limit = stats.get("bytes_limit")
    if limit:
        return limit // _FRACTION, f"a quarter of the device's {megabytes(limit)}"
    why = "since the device does not say how much memory it has"
    return HOST_BUDGET, f"{megabytes(HOST_BUDGET)}, {why}"


def temporary_bytes(executable: Any) -> int | None:
    """What a compiled program's intermediate results take, as the compiler says.

    Args:
      executable: A compiled program, as `jax.stages.Lowered.compile` gives it.

    Returns:
      Bytes, or ``None`` where the backend does not say.

    Examples:
      >>> class Silent:
      ...     memory_analysis = lambda self: None
      >>> print(temporary_bytes(Silent()))
      None
    """
    try:
        analysis = executable.memory_analysis()
    except NotImplementedError:
        return None
    size = getattr(analysis, "temp_size_in_bytes", None)
    return None if size is None else int(size)


def written_bytes(jaxpr: Any) -> int:
    """What the results of all equations take together, if none is ever freed.

    The body of a loop counts once, what a scan stacks in full.

    Args:
      jaxpr: A closed or open jaxpr.

    Returns:
      Bytes; an estimate from above of what a compiled program keeps at a time.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> written_bytes(jax.make_jaxpr(lambda x: jnp.sum(x * 2))(jnp.ones(256)))
      1028
    """
    return sum(_results(jaxpr))


def largest_bytes(jaxpr: Any) -> int:
    """What the largest result of an equation takes.

    Args:
      jaxpr: A closed or open jaxpr.

    Returns:
      Bytes; 0 without equations.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> largest_bytes(jax.make_jaxpr(lambda x: jnp.sum(x * 2))(jnp.ones(256)))
      1024
    """
    return max(_results(jaxpr), default=0)


def _results(jaxpr: Any) -> Iterator[int]:
    """Bytes of every result of every equation."""
    for eqn in compat.open_jaxpr(jaxpr).eqns:
        for variable in eqn.outvars:
            aval: Any = variable.aval
            yield aval.size * getattr(aval.dtype, "itemsize", 4)
        for inner in compat.subprograms(eqn):
            yield from _results(inner)


def megabytes(size: float) -> str:
    """Bytes in words.

    Args:
      size: A number of bytes.

    Returns:
      The number of megabytes, with its unit.

    Examples:
      >>> megabytes(1 << 30), megabytes(20_000)
      ('1,074 MB', '0.02 MB')
    """
    millions = size / 1e6
    return f"{millions:,.0f} MB" if millions >= 10 else f"{millions:.2g} MB"
