"""Which parameters scale an activation channel by channel.

Walking backwards from an activation through operations that are linear in one operand,
this finds the parameters whose division by ``s`` divides the activation by ``s``, one
factor per channel: a norm's scale and bias, the output columns of an earlier linear
layer seen through attention, a gate or a reshape. Nothing is assumed about names.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from jeff.program import compat, walk

__all__ = ["ChannelMap", "find_sources", "weight_channels"]

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
    }
)
_ALL_OPERANDS = frozenset({"add", "sub", "add_any", "select_n"})


@dataclasses.dataclass(frozen=True)
class ChannelMap:
    """Which channel each element of a weight belongs to.

    Attributes:
      index: int array that broadcasts against the weight; ``-1``: no channel.
      offset: The value used is ``offset + weight`` (a norm stored around zero), so
        dividing it by ``s`` is ``(offset + w) / s - offset``.
    """

    index: np.ndarray
    offset: float = 0.0


@dataclasses.dataclass
class _Search:
    """State of one backward walk; copied where the walk may have to turn back."""

    found: dict[str, ChannelMap]
    share: np.ndarray
    allowed: frozenset[str] | None
    conflicts: int = 0

    def copy(self) -> "_Search":
        return _Search(
            dict(self.found), self.share.copy(), self.allowed, self.conflicts
        )

    def adopt(self, other: "_Search") -> None:
        self.found, self.share = other.found, other.share
        self.conflicts = other.conflicts

    def choose(self, attempts: Sequence["_Search"]) -> bool:
        """Adopts the attempt with the fewest conflicts, the first of equals."""
        if attempts:
            self.adopt(min(attempts, key=lambda a: a.conflicts))
        return bool(attempts)

    def tie(self, channels: np.ndarray) -> None:
        """Makes the given channels share one factor."""
        classes = np.unique(self.share[channels])
        self.share[np.isin(self.share, classes)] = classes.min()


def find_sources(
    step: walk.Step,
    contract: Sequence[int],
    allowed: Sequence[str] | None = None,
) -> tuple[Mapping[str, ChannelMap], np.ndarray] | None:
    """Parameters that scale the input of a site, channel by channel.

    Args:
      step: The site's step.
      contract: Contracted axes of the site's activation operand, in the order of
        the weight's contracted axes.
      allowed: Names of the leaves that may be used; any if not given.

    Returns:
      ``(sources, share)``: a map per entry weight of the frame, and for each of the K
      channels the class of channels that must share one factor (grouped-query
      attention); ``None`` if there is no such set of parameters.
    """
    assert step.weight is not None
    x = step.inputs[1 - step.weight]
    index = _contracted_index(x.aval.shape, contract)
    names = None if allowed is None else frozenset(allowed)
    search = _Search({}, np.arange(index.size), names)
    if not _push(search, x, index, step.outputs[0].frame):
        return None
    return search.found, search.share


def weight_channels(
    step: walk.Step, contract: Sequence[int]
) -> tuple[Mapping[str, ChannelMap], np.ndarray] | None:
    """Where the input channels of a site lie in the entry weights it is made of.

    Args:
      step: The site's step.
      contract: Contracted axes of the weight operand, in the leaf's order.

    Returns:
      ``(maps, share)`` as `find_sources`, or ``None`` if the weight is computed in a
      way that mixes channels.
    """
    assert step.weight is not None
    w = step.inputs[step.weight]
    index = _contracted_index(w.aval.shape, contract)
    search = _Search({}, np.arange(index.size), None)
    if not _push(search, w, index, step.outputs[0].frame):
        return None
    return search.found, search.share


def _contracted_index(shape, contract) -> np.ndarray:
    sizes = [shape[i] for i in contract]
    index = np.arange(math.prod(sizes)).reshape(sizes)
    order = sorted(range(len(contract)), key=lambda i: contract[i])
    index = index.transpose(order)
    return index.reshape([n if i in contract else 1 for i, n in enumerate(shape)])


def _push(search: _Search, value: walk.Value, index: np.ndarray, frame) -> bool:
    """Makes `value` scale by channel, by scaling parameters further back."""
    if (index < 0).all():
        return True
    if value.literal is not None:
        return not np.any(np.asarray(value.literal))  # zero scales to zero
    value = frame.first.get(value.number, value)
    step = value.step if value.frame is frame else None
    if step is None:
        return _record(search, value, index, 0.0)
    if value.is_weight and (offset := _offset(step)) is not None:
        operand, constant = offset
        if operand.step is None or operand.frame is not frame:
            return _record(search, operand, _onto(index, operand), constant)
    name = step.eqn.primitive.name
    position = next(i for i, v in enumerate(step.outputs) if v.number == value.number)
    if name == "split":
        return _split(search, step, index, frame, position)
    if name in _SAME:
        return _push(search, step.inputs[position], index, frame)
    if name in _ALL_OPERANDS:
        operands = step.inputs[1:] if name == "select_n" else step.inputs
        return all(_push(search, v, _onto(index, v), frame) for v in operands)
    handler = _HANDLERS.get(name)
    return handler is not None and handler(search, step, index, frame)


def _record(search: _Search, value: walk.Value, index, offset: float) -> bool:
    origin = value.origin
    if origin is None or not origin.is_view:
        return False
    name = origin.leaves[0]
    if search.allowed is not None and name not in search.allowed:
        return False
    index = np.broadcast_to(index, np.broadcast_shapes(index.shape, _ones(value)))
    known = search.found.get(name)
    if known is not None:
        merged = _merge(known.index, index)
        if merged is None or known.offset != offset:
            return False
        index = merged
    search.found[name] = ChannelMap(index, offset)
    return True


def _merge(a: np.ndarray, b: np.ndarray) -> np.ndarray | None:
    """Two maps of one weight, if they agree where both name a channel."""
    a, b = np.broadcast_arrays(a, b)
    if ((a != b) & (a >= 0) & (b >= 0)).any():
        return None
    return np.maximum(a, b)


def _ones(value) -> tuple[int, ...]:
    return (1,) * len(value.aval.shape)


def _onto(index: np.ndarray, operand: walk.Value) -> np.ndarray:
    """The index for an operand that may be a scalar."""
    return index if operand.aval.shape or index.ndim == 0 else index[:0]


def _offset(step) -> tuple[walk.Value, float] | None:
    """``(weight, c)`` if the step adds the scalar constant c to a weight."""
    if step.eqn.primitive.name != "add":
        return None
    for a, b in (step.inputs, step.inputs[::-1]):
        if a.literal is not None and b.is_weight and np.ndim(a.literal) == 0:
            return b, float(a.literal)
    return None


def _mul(search, step, index, frame) -> bool:
    """One factor is enough; a parameter is preferred to an earlier layer."""
    operands = [v for v in step.inputs if v.aval.shape and v.literal is None]
    attempts = []
    for operand in sorted(operands, key=lambda v: not v.is_weight):
        others = [v for v in step.inputs if v is not operand]
        _attempt(search, attempts, operand, index, frame, others)
    return search.choose(attempts)


def _attempt(search, attempts, operand, index, frame, others) -> None:
    """Tries to scale `operand` alone; a conflict if another operand scales with it.

    In ``silu(g) = g * sigmoid(g)`` both factors come from one layer, so scaling it
    would scale more than the product. With one fused kernel the same leaf may be
    used through other columns, so a conflict is counted, not forbidden.
    """
    attempt = search.copy()
    if not _push(attempt, operand, index, frame):
        return
    new = set(attempt.found) - set(search.found)
    if any(new & _ancestors(v, frame) for v in others):
        attempt.conflicts += 1
    attempts.append(attempt)


def _ancestors(value: walk.Value, frame: walk.Frame) -> set[str]:
    """Leaves that a value depends on within the frame."""
    names: set[str] = set()
    queue, seen = [value], set()
    while queue:
        v = queue.pop()
        if v.number in seen:
            continue
        seen.add(v.number)
        if v.origin is not None and v.origin.is_weight:
            names.update(v.origin.leaves)
        elif v.step is not None and v.frame is frame:
            queue.extend(v.step.inputs)
    return names


def _div(search, step, index, frame) -> bool:
    return _push(search, step.inputs[0], index, frame)


def _reshape(search, step, index, frame) -> bool:
    old = step.inputs[0].aval.shape
    moved = _reshape_index(index, step.outputs[0].aval.shape, old)
    return moved is not None and _push(search, step.inputs[0], moved, frame)


def _reshape_index(index, shape, old) -> np.ndarray | None:
    """The index before a reshape ``old -> shape``, expanding no axis needlessly."""
    i = j = 0
    pieces: list[tuple[list[int], list[int]]] = []
    while i < len(shape) or j < len(old):
        a, b = [], []
        while True:
            left = math.prod(shape[k] for k in a)
            right = math.prod(old[k] for k in b)
            if left == right and (a or b):
                break
            if left <= right and i < len(shape):
                a.append(i)
                i += 1
            elif j < len(old):
                b.append(j)
                j += 1
            else:
                a.append(i)
                i += 1
        pieces.append((a, b))
    target = []
    expanded = list(index.shape)
    for a, b in pieces:
        if any(index.shape[k] != 1 for k in a):
            for k in a:
                expanded[k] = shape[k]
            target += [old[k] for k in b]
        else:
            target += [1] * len(b)
    return np.broadcast_to(index, expanded).reshape(target)


def _transpose(search, step, index, frame) -> bool:
    inverse = np.argsort(step.eqn.params["permutation"])
    return _push(search, step.inputs[0], index.transpose(inverse), frame)


def _broadcast(search, step, index, frame) -> bool:
    operand = step.inputs[0]
    dims = step.eqn.params["broadcast_dimensions"]
    old, new = operand.aval.shape, step.outputs[0].aval.shape
    place = {i: d for i, d in enumerate(dims) if old[i] == new[d]}
    moved = _onto_axes(search, index, place, len(old))
    return moved is not None and _push(search, operand, moved, frame)


def _onto_axes(search, index, place: Mapping[int, int], rank: int):
    """The index on an operand whose axis ``a`` is axis ``place[a]`` of the result.

    Along axes of the result that the operand does not have, it is repeated: the
    channels there must share one factor.
    """
    kept = list(place.values())
    lost = [d for d in range(index.ndim) if d not in kept and index.shape[d] != 1]
    if lost:
        rows = np.moveaxis(index, lost, range(len(lost)))
        rows = rows.reshape(math.prod(index.shape[d] for d in lost), -1)
        for column in rows.T:
            if (column >= 0).any() and (column < 0).any():
                return None
            search.tie(column[column >= 0])
        index = index[
            tuple(slice(0, 1) if d in lost else slice(None) for d in range(index.ndim))
        ]
    order = [place[a] for a in range(rank) if a in place]
    rest = [d for d in range(index.ndim) if d not in order]
    shape = [index.shape[place[a]] if a in place else 1 for a in range(rank)]
    return index.transpose([*order, *rest]).reshape(shape)


def _slice(search, step, index, frame) -> bool:
    params, operand = step.eqn.params, step.inputs[0]
    if any(s != 1 for s in params["strides"] or ()):
        return False
    starts, limits = params["start_indices"], params["limit_indices"]
    return _push(
        search, operand, _embed(index, operand.aval.shape, starts, limits), frame
    )


def _embed(index, shape, starts, limits) -> np.ndarray:
    """The index of a part, as an index of the whole (-1 elsewhere)."""
    cut = [e - s != n for s, e, n in zip(starts, limits, shape, strict=True)]
    sizes = [
        n if c else index.shape[i]
        for i, (n, c) in enumerate(zip(shape, cut, strict=True))
    ]
    whole = np.full(sizes, -1)
    where = tuple(
        slice(s, e) if c else slice(None)
        for s, e, c in zip(starts, limits, cut, strict=True)
    )
    whole[where] = index
    return whole


def _split(search, step, index, frame, position) -> bool:
    axis, sizes = step.eqn.params["axis"], step.eqn.params["sizes"]
    shape = step.inputs[0].aval.shape
    starts, limits = [0] * len(shape), list(shape)
    starts[axis] = sum(sizes[:position])
    limits[axis] = starts[axis] + sizes[position]
    return _push(search, step.inputs[0], _embed(index, shape, starts, limits), frame)


def _concatenate(search, step, index, frame) -> bool:
    axis, start = step.eqn.params["dimension"], 0
    for operand in step.inputs:
        size = operand.aval.shape[axis]
        part = index
        if index.shape[axis] != 1:
            part = np.take(index, range(start, start + size), axis)
        start += size
        if not _push(search, operand, part, frame):
            return False
    return True


def _dot(search, step, index, frame) -> bool:
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
    attempts: list[_Search] = []
    varying = {d for d in range(index.ndim) if index.shape[d] != 1}
    sides = [s for s in (0, 1) if varying & set(places[s].values())]
    whole = [s for s in sides if varying <= set(places[s].values())]
    for side in sorted(whole or sides, key=lambda s: s != step.weight):
        operand, other = step.inputs[side], step.inputs[1 - side]
        trial = search.copy()
        moved = _onto_axes(trial, index, places[side], len(operand.aval.shape))
        if moved is not None:
            _attempt(trial, attempts, operand, moved, frame, [other])
    return search.choose(attempts)


def _conv(search, step, index, frame) -> bool:
    """Output features of a convolution are the output axis of its kernel."""
    numbers = step.eqn.params["dimension_numbers"]
    feature = numbers.out_spec[1]
    if any(n != 1 for d, n in enumerate(index.shape) if d != feature):
        return False
    kernel = step.inputs[1]
    shape = [1] * len(kernel.aval.shape)
    shape[numbers.rhs_spec[0]] = -1
    return _push(search, kernel, index.reshape(shape), frame)


def _relu(search, step, index, frame) -> bool:
    """``max(x / s, 0) = max(x, 0) / s`` for positive s."""
    if step.eqn.primitive.name == "max":
        literals = [v for v in step.inputs if v.literal is not None]
        if len(literals) == 1 and not np.any(np.asarray(literals[0].literal)):
            other = next(v for v in step.inputs if v.literal is None)
            return _push(search, other, index, frame)
        return False
    if not _is_relu(compat.inner_jaxpr(step.eqn)):
        return False
    return _push(search, step.inputs[0], index, frame)


def _is_relu(jaxpr) -> bool:
    eqns = compat.open_jaxpr(jaxpr).eqns
    if len(eqns) != 1:
        return False
    if eqns[0].primitive.name in compat.CALLS:
        return _is_relu(compat.inner_jaxpr(eqns[0]))
    return eqns[0].primitive.name == "max" and any(
        compat.is_literal(a) and not np.any(np.asarray(a.val)) for a in eqns[0].invars
    )


_HANDLERS = {
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
