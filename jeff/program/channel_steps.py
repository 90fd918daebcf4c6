"""How a scale per channel passes backwards through one step of a program.

Each function takes the search (`jeff.program.channels`), the step, the index of its
output (`jeff.program.channel_index`) and which output that is; it asks the search to
scale operands instead, and says whether that was possible.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from jeff.program import channel_index, compat, graph, marks

__all__ = ["through"]

_SAME = frozenset(
    {
        "copy",
        "copy_p",
        "convert_element_type",
        "stop_gradient",
        "neg",
        "sharding_constraint",
        "reduce_precision",
        "optimization_barrier",
        marks.PRIMITIVE,
    }
)
_ALL_OPERANDS = frozenset({"add", "sub", "add_any", "select_n"})


def through(search: Any, step: graph.Step, index: np.ndarray, output: int) -> bool:
    """Scales an output of a step by channel, by scaling its operands.

    Args:
      search: The search; its `push`, `push_all`, `attempt`, `choose` and `tie`.
      step: The step.
      index: Index of the output.
      output: Position of the output.

    Returns:
      Whether the step is linear in what had to be scaled.
    """
    name = step.eqn.primitive.name
    if name in _SAME:
        return search.push(step.inputs[output], index)
    if name in _ALL_OPERANDS:
        operands = step.inputs[1:] if name == "select_n" else step.inputs
        return search.push_all(operands, index)
    if name == "split":
        return _split(search, step, index, output)
    handler = _HANDLERS.get(name)
    return handler is not None and handler(search, step, index)


def _mul(search, step, index) -> bool:
    """One factor is enough; a parameter is preferred to an earlier layer."""
    operands = [v for v in step.inputs if v.aval.shape and v.literal is None]
    attempts = []
    for operand in sorted(operands, key=lambda v: not v.is_weight):
        others = [v for v in step.inputs if v is not operand]
        attempts += search.attempt(operand, index, others)
    return search.choose(attempts)


def _div(search, step, index) -> bool:
    return search.push_all(step.inputs[:1], index)


def _reshape(search, step, index) -> bool:
    operand, order = step.inputs[0], None
    old = operand.aval.shape
    if step.eqn.primitive.name == "reshape":
        order = step.eqn.params["dimensions"]  # the operand's axes are read in it
    if order is not None:
        old = tuple(old[i] for i in order)
    moved = channel_index.reshaped(index, step.outputs[0].aval.shape, old)
    if order is not None:
        moved = moved.transpose(np.argsort(order))
    return search.push(operand, moved)


def _transpose(search, step, index) -> bool:
    inverse = np.argsort(step.eqn.params["permutation"])
    return search.push(step.inputs[0], index.transpose(inverse))


def _broadcast(search, step, index) -> bool:
    operand = step.inputs[0]
    if operand.literal is not None:
        return search.push(operand, index)
    dims = step.eqn.params["broadcast_dimensions"]
    old, new = operand.aval.shape, step.outputs[0].aval.shape
    place = {i: d for i, d in enumerate(dims) if old[i] == new[d]}
    moved = channel_index.onto_axes(index, place, len(old))
    if moved is None:
        return False
    search.tie(moved[1])
    return search.push(operand, moved[0])


def _slice(search, step, index) -> bool:
    params, operand = step.eqn.params, step.inputs[0]
    if any(s != 1 for s in params["strides"] or ()):
        return False
    starts, limits = params["start_indices"], params["limit_indices"]
    whole = channel_index.embedded(index, operand.aval.shape, starts, limits)
    return search.push(operand, whole)


def _split(search, step, index, output) -> bool:
    axis, sizes = step.eqn.params["axis"], step.eqn.params["sizes"]
    shape = step.inputs[0].aval.shape
    starts, limits = [0] * len(shape), list(shape)
    starts[axis] = sum(sizes[:output])
    limits[axis] = starts[axis] + sizes[output]
    whole = channel_index.embedded(index, shape, starts, limits)
    return search.push(step.inputs[0], whole)


def _concatenate(search, step, index) -> bool:
    axis, start = step.eqn.params["dimension"], 0
    for operand in step.inputs:
        size = operand.aval.shape[axis]
        part = index
        if index.shape[axis] != 1:
            part = np.take(index, range(start, start + size), axis)
        start += size
        if not search.push(operand, part):
            return False
    return True


def _dot(search, step, index) -> bool:
    """The operand whose batch and free axes hold all the channels."""
    contract, batch = step.eqn.params["dimension_numbers"]
    places, out = [], len(batch[0])
    for side in (0, 1):
        rank = len(step.inputs[side].aval.shape)
        used = (*contract[side], *batch[side])
        free = [i for i in range(rank) if i not in used]
        place = {axis: i for i, axis in enumerate(batch[side])}
        place.update({axis: out + i for i, axis in enumerate(free)})
        out += len(free)
        places.append(place)
    attempts = []
    varying = {d for d in range(index.ndim) if index.shape[d] != 1}
    sides = [s for s in (0, 1) if varying & set(places[s].values())]
    whole = [s for s in sides if varying <= set(places[s].values())]
    for side in sorted(whole or sides, key=lambda s: s != step.weight):
        operand, other = step.inputs[side], step.inputs[1 - side]
        moved = channel_index.onto_axes(index, places[side], operand.aval.ndim)
        if moved is not None:
            attempts += search.attempt(operand, moved[0], [other], moved[1])
    return search.choose(attempts)


def _conv(search, step, index) -> bool:
    """Output features of a convolution are the output axis of its kernel."""
    numbers = step.eqn.params["dimension_numbers"]
    feature = numbers.out_spec[1]
    if any(n != 1 for d, n in enumerate(index.shape) if d != feature):
        return False
    kernel = step.inputs[1]
    shape = [1] * len(kernel.aval.shape)
    shape[numbers.rhs_spec[0]] = -1
    return search.push(kernel, index.reshape(shape))


def _relu(search, step, index) -> bool:
    """``max(x / s, 0) = max(x, 0) / s`` for positive s."""
    if step.eqn.primitive.name == "max":
        literals = [v for v in step.inputs if v.literal is not None]
        if len(literals) == 1 and not np.any(np.asarray(literals[0].literal)):
            other = next(v for v in step.inputs if v.literal is None)
            return search.push(other, index)
        return False
    if not _is_relu(compat.inner_jaxpr(step.eqn)):
        return False
    return search.push(step.inputs[0], index)


def _is_relu(jaxpr) -> bool:
    eqns = compat.open_jaxpr(jaxpr).eqns
    if len(eqns) != 1:
        return False
    if eqns[0].primitive.name in compat.CALLS:
        return _is_relu(compat.inner_jaxpr(eqns[0]))
    return eqns[0].primitive.name == "max" and any(
        compat.is_literal(a) and not np.any(np.asarray(a.val)) for a in eqns[0].invars
    )


_HANDLERS: dict[str, Callable[..., bool]] = {
    "broadcast_in_dim": _broadcast,
    "concatenate": _concatenate,
    "conv_general_dilated": _conv,
    "custom_jvp_call": _relu,
    "div": _div,
    "dot_general": _dot,
    "expand_dims": _reshape,
    "max": _relu,
    "mul": _mul,
    "reshape": _reshape,
    "slice": _slice,
    "squeeze": _reshape,
    "transpose": _transpose,
}
