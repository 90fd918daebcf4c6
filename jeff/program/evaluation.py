"""Computing values in the middle of a program, running no step that is not needed."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from jeff import base
from jeff.program import compat, graph
from jeff.program.run import Run, Scope
from jeff.program.sites import Found

__all__ = [
    "capture",
    "constants",
    "dense",
    "evaluate",
    "frames_around",
    "read",
    "run_steps",
]


def evaluate(
    found: Found,
    frame: graph.Frame,
    wanted: Sequence[graph.Value],
    env: dict[int, Any],
    scope: Scope | None = None,
) -> list[Any]:
    """Computes `wanted` from what `env` holds, running no step that is not needed.

    Args:
      found: The program.
      frame: The frame to compute in.
      wanted: Values of this frame.
      env: Arrays by value number; what is computed on the way is added.
      scope: Iterations of the loops around; all zero if not given.

    Returns:
      An array, or a weight that is still stored, for each of `wanted`.

    Raises:
      ValueError: If something needed is neither in `env` nor computed in the frame.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jeff.program import trace
      >>> from jeff.program.sites import find
      >>> def mlp(p, x):
      ...     return jnp.cos(x @ p["up"]) @ p["down"]
      >>> params, x = {"up": jnp.eye(2), "down": jnp.eye(2)}, jnp.zeros(2)
      >>> found = find(trace.tracer_of(mlp).trace(params, (x,), {}))
      >>> frame, hidden = found.program.frame, found.steps["down"].inputs[0]
      >>> arrays = trace.program_inputs(params, (x,), {})
      >>> env = {v.number: a for v, a in zip(frame.inputs, arrays, strict=True)}
      >>> print(evaluate(found, frame, [hidden], env)[0])
      [1. 1.]
    """
    needed: set[int] = set()
    queue, seen = list(wanted), set()
    while queue:
        value = queue.pop()
        if value.number in env or value.number in seen or value.literal is not None:
            continue
        seen.add(value.number)
        value = frame.first.get(value.number, value)
        if value.step is None:
            raise ValueError(f"{value} is not available here")
        needed.add(id(value.step))
        queue.extend(value.step.inputs)
    steps = [s for s in frame.steps if id(s) in needed]
    run = Run(found=found)
    run_steps(run, steps, env, scope or Scope((0,) * len(frame.loops), {}))
    return [read(env, v) for v in wanted]


def run_steps(
    run: Run, steps: Sequence[graph.Step], env: dict[int, Any], scope
) -> dict[str, Any]:
    """Runs steps one after another.

    Args:
      run: The interpretation: rules, taps, and the program.
      steps: Steps of one frame, in program order.
      env: Arrays by value number; the outputs of the steps are added.
      scope: Iterations of the loops around.

    Returns:
      By site's name what its tap emitted.
    """
    emitted: dict[str, Any] = {}
    for step in steps:
        operands = [read(env, v) for v in step.inputs]
        outs, new = run.equation(step.eqn, operands, step.path, scope)
        emitted.update(new)
        for value, out in zip(step.outputs, outs, strict=True):
            env.setdefault(value.number, out)
    return emitted


def read(env: Mapping[int, Any], value: graph.Value) -> Any:
    """The value's array.

    Args:
      env: Arrays by value number.
      value: The value.

    Returns:
      What `env` holds for it, else its literal.
    """
    return value.literal if value.number not in env else env[value.number]


def frames_around(frame: graph.Frame) -> list[graph.Frame]:
    """The frames from the whole program to `frame`.

    Args:
      frame: The whole program, or the body of a scan.

    Returns:
      The frames, outermost first, `frame` last.

    Raises:
      NotImplementedError: If one of them is a while loop, a branch or a shard_map.
    """
    chain: list[graph.Frame] = []
    at: graph.Frame | None = frame
    while at is not None:
        chain.insert(0, at)
        at = at.parent
    for inner in chain[1:]:
        if inner.kind != "scan":
            raise NotImplementedError(
                f"cannot cut inside a {inner.kind}: only whole programs and scan bodies"
            )
    return chain


def capture(
    found: Found,
    frame: graph.Frame,
    wanted: Sequence[graph.Value],
    values: Sequence[Any],
) -> list[Any]:
    """Values in the middle of a program, with one leading axis per loop around.

    Args:
      found: The program.
      frame: The frame the wanted values live in.
      wanted: The values.
      values: Flat inputs of the program.

    Returns:
      A dense array per wanted value, ``[*loop lengths, *shape]``.

    Raises:
      NotImplementedError: If the frame lies in a while loop, a branch or a shard_map.
    """
    chain = frames_around(frame)
    env: dict[int, Any] = {}
    for value, array in zip(chain[0].inputs, values, strict=True):
        env[value.number] = array
    constants(found, env)
    return _capture(found, chain, wanted, env, ())


def constants(found: Found, env: dict[int, Any]) -> None:
    """Puts the arrays that the function closed over into `env`.

    Args:
      found: The program.
      env: Arrays by value number; added to.
    """
    jaxpr = found.traced.jaxpr
    values = found.program.consts
    for value, array in zip(values, compat.consts_of(jaxpr), strict=True):
        env[value.number] = array


def _capture(found, chain, wanted, env, iterations) -> list[Any]:
    frame, rest = chain[0], chain[1:]
    scope = Scope(iterations, {})
    if not rest:
        return [dense(v) for v in evaluate(found, frame, wanted, env, scope)]
    child = rest[0]
    step = child.step
    operands = evaluate(found, frame, step.inputs, env, scope)
    first, stop = child.num_consts, child.num_consts + child.num_carry
    env = {**env, **{v.number: a for v, a in zip(step.inputs, operands, strict=True)}}

    def body(carry, slices):
        i, xs = slices
        local = dict(env)
        for value, array in zip(child.inputs[first:stop], carry, strict=True):
            local[value.number] = array
        for value, array in zip(child.inputs[stop:], xs, strict=True):
            local[value.number] = array
        inner = _capture(found, rest, wanted, dict(local), (*iterations, i))
        outs = evaluate(
            found,
            child,
            child.outputs[: child.num_carry],
            local,
            Scope((*iterations, i), {}),
        )
        return [dense(v) for v in outs], inner

    params = step.eqn.params
    carry = [dense(v) for v in operands[first:stop]]
    xs = [
        v if not base.is_stored(v) or v.can_index(0) else v.decode()
        for v in operands[stop:]
    ]
    steps = jax.numpy.arange(params["length"])
    _, inner = jax.lax.scan(
        body, carry, (steps, xs), length=params["length"], reverse=params["reverse"]
    )
    return inner


def dense(value: Any) -> jax.Array:
    """The value, decoded if it is stored.

    Args:
      value: An array or a stored weight.

    Returns:
      A dense array.
    """
    return value.decode() if base.is_stored(value) else value
