"""What depends on what within a frame of a program."""

from collections.abc import Collection, Iterable

from jeff.program import graph
from jeff.program.sites import Found

__all__ = ["dependents", "leaves_behind", "on_inputs"]


def dependents(frame: graph.Frame, begun: Collection[int]) -> set[int]:
    """Numbers of the values that depend on some values.

    Args:
      frame: The frame they live in.
      begun: Numbers of values to begin with.

    Returns:
      Their numbers, those of `begun` included.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jeff.program import trace
      >>> from jeff.program.sites import find
      >>> def mlp(p, x):
      ...     return jnp.cos(x @ p["up"]) @ p["down"]
      >>> args = {"up": jnp.eye(2), "down": jnp.eye(2)}, (jnp.zeros(2),), {}
      >>> found = find(trace.tracer_of(mlp).trace(*args))
      >>> frame, hidden = found.program.frame, found.steps["down"].inputs[0]
      >>> [v.number in dependents(frame, {hidden.number}) for v in frame.outputs]
      [True]
    """
    depends = set(begun)
    for step in frame.steps:
        if any(v.number in depends for v in step.inputs):
            depends.update(v.number for v in step.outputs)
    return depends


def on_inputs(found: Found) -> set[int]:
    """Numbers of the values that depend on an input of the program, not only on params.

    Args:
      found: The program.

    Returns:
      Numbers of values of its outermost frame, the inputs included.
    """
    frame = found.program.frame
    inputs = frame.inputs[len(found.traced.names) :]
    return dependents(frame, {v.number for v in inputs})


def leaves_behind(found: Found, values: Iterable[graph.Value]) -> set[str]:
    """Names of the parameter leaves that some values depend on.

    Args:
      found: The program.
      values: Values of its outermost frame.

    Returns:
      The names.
    """
    frame = found.program.frame
    names = {v.number: n for n, v in found.program.leaves.items()}
    queue, seen, leaves = list(values), set(), set()
    while queue:
        value = queue.pop()
        if value.number in seen or value.literal is not None:
            continue
        seen.add(value.number)
        if value.number in names:
            leaves.add(names[value.number])
        value = frame.first.get(value.number, value)
        if value.step is not None:
            queue.extend(value.step.inputs)
    return leaves
