"""The repeated units of a program, for work that must fit one block in memory."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from jeff.program import piece as piece_lib
from jeff.program import repeats, trace, walk
from jeff.program.sites import Found, find
from jeff.program.stack import LeafRef, Stack

__all__ = ["LeafRef", "Stack", "blocks", "whole"]


def blocks(
    apply: Callable[..., Any],
    params: Any,
    *inputs: Any,
    boundaries: Sequence[str] | None = None,
    **kwargs: Any,
) -> tuple[Stack, ...]:
    """The repeated units of a program: scanned layers, or equal layers in sequence.

    A scan over stacked weights is one stack. In straight-line code, the longest runs
    of structurally equal sub-programs are found from the equations alone; names play
    no part.

    Args:
      apply: ``apply(params, *inputs, **kwargs)``.
      params: Params tree.
      *inputs: Inputs, or their shapes.
      boundaries: For straight-line code, the names of the first site of each block,
        if the automatic choice is not wanted.
      **kwargs: Keyword inputs.

    Returns:
      The stacks, in program order; empty if nothing is repeated.

    Raises:
      ValueError: If `boundaries` names an unknown site, or its blocks are not equal.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> def model(p, x):
      ...     return jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, p["w"])[0]
      >>> params = {"w": jnp.ones((5, 4, 4))}
      >>> (stack,) = blocks(model, params, jnp.ones((2, 4)))
      >>> stack.count, stack.sites
      (5, ('w',))
    """
    found = find(trace.tracer_of(apply).trace(params, inputs, kwargs))
    key = ("blocks", None if boundaries is None else tuple(boundaries))
    if key not in found.memo:
        found.memo[key] = _stacks(found, boundaries)
    return found.memo[key]


def whole(apply: Callable[..., Any], params: Any, *inputs: Any, **kwargs: Any) -> Stack:
    """The whole program as a stack of one block, for programs without repetition.

    Args:
      apply: ``apply(params, *inputs, **kwargs)``.
      params: Params tree.
      *inputs: Inputs, or their shapes.
      **kwargs: Keyword inputs.

    Returns:
      One block whose state are the inputs.

    Examples:
      >>> import jax.numpy as jnp
      >>> params, x = {"w": 2 * jnp.eye(2)}, jnp.ones((1, 2))
      >>> stack = whole(lambda p, x: x @ p["w"], params, x)
      >>> state, sides = stack.enter(params, x)
      >>> print(stack.count, stack.run(stack.weights(params, 0), state, sides)[0])
      1 [[2. 2.]]
    """
    found = find(trace.tracer_of(apply).trace(params, inputs, kwargs))
    if "whole" in found.memo:
        return found.memo["whole"]
    frame = found.program.frame
    start = frame.inputs[len(found.traced.names) :]
    piece = piece_lib.make_piece(found, frame, start, frame.outputs)
    refs = {n: LeafRef(n, None, None) for n in piece.weights}
    found.memo["whole"] = Stack(
        piece=piece,
        count=1,
        leaves=(refs,),
        sites=piece.sites(),
        per_block_side=(False,) * len(piece.side),
        names=({n: n for n in piece.sites()},),
        iterations=(None,),
        _entry=tuple(start),
        _sides=(piece.side,),
    )
    return found.memo["whole"]


def _stacks(found: Found, boundaries: Sequence[str] | None) -> tuple[Stack, ...]:
    if boundaries is not None:
        return (repeats.named_stack(found, boundaries),)
    stacks = [
        _scan_stack(found, step)
        for step in found.program.frame.steps
        if step.eqn.primitive.name == "scan" and _steps_through_weights(step)
    ]
    if not stacks:
        stacks = repeats.sequence_stacks(found)
    return tuple(stacks)


def _steps_through_weights(step: walk.Step) -> bool:
    """Whether a scan takes an entry of some weight in each of its iterations."""
    if not step.children or (step.children[0].trips or 0) < 2:
        return False
    loop = step.children[0].path
    origins = (
        s.weight_value.origin
        for frame in _frames(step)
        for s in frame.steps
        if s.weight is not None and s.kind != "lookup"
    )
    return any(o is not None and o.is_weight and loop in o.loops for o in origins)


def _frames(step: walk.Step) -> Iterable[walk.Frame]:
    for child in step.children:
        yield child
        for inner in child.steps:
            yield from _frames(inner)


def _scan_stack(found: Found, step: walk.Step) -> Stack:
    frame = step.children[0]
    first, stop = frame.num_consts, frame.num_consts + frame.num_carry
    moving = [
        i
        for i in range(frame.num_carry)
        if frame.outputs[i] is not frame.inputs[first + i]
    ]
    state_in = [frame.inputs[first + i] for i in moving]
    piece = piece_lib.make_piece(
        found, frame, state_in, [frame.outputs[i] for i in moving], deep=True
    )
    outer = dict(zip((id(v) for v in frame.inputs), step.inputs, strict=True))
    sliced = {id(v) for v in frame.inputs[stop:]}
    count = frame.trips or 0
    order = range(count)
    if step.eqn.params["reverse"]:
        order = range(count - 1, -1, -1)
    leaves = []
    for i in order:
        leaves.append(
            {n: _scan_ref(v, outer, sliced, i) for n, v in piece.weights.items()}
        )
    own = tuple(id(v) in sliced for v in piece.side)
    same = {name: name for name in piece.sites()}
    return Stack(
        piece=piece,
        count=count,
        leaves=tuple(leaves),
        sites=piece.sites(),
        per_block_side=own,
        names=(same,) * count,
        iterations=tuple(order),
        _entry=tuple(step.inputs[first + i] for i in moving),
        _sides=(tuple(outer.get(id(v), v) for v in piece.side),),
    )


def _scan_ref(value, outer, sliced, i) -> LeafRef:
    name = value.origin.leaves[0]
    if id(value) not in sliced:
        return LeafRef(name, None, None)
    (atom,) = outer[id(value)].origin.axes[0]
    return LeafRef(name, i, atom.axis)
