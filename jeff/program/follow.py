"""How an origin passes through an equation, and which equations are sites.

Pure functions of one equation and its operands; the walk (`jeff.program.walk`) applies
them in program order.
"""

import dataclasses
import math
from typing import Any

from jeff.program import origin as origin_lib
from jeff.program.graph import Value
from jeff.program.origin import Origin

__all__ = ["SITE_PRIMITIVES", "mixed", "moved", "shard", "site_of", "split"]

_PRODUCTS = frozenset({"dot_general", "ragged_dot", "ragged_dot_general"})
SITE_PRIMITIVES = _PRODUCTS | {"conv_general_dilated", "gather", "dynamic_slice"}


def moved(name, params, operands, aval) -> Origin | None:
    """The origin of a weight after an equation that only moves it, else ``None``."""
    origin, old = operands[0].origin, operands[0].aval.shape
    if name == "convert_element_type":
        return origin
    if name == "reshape":
        return origin.reshape(aval.shape)
    if name == "transpose":
        return origin.transpose(params["permutation"])
    if name == "squeeze":
        return origin.drop([d % len(old) for d in params["dimensions"]])
    if name == "expand_dims":
        return origin.reshape(aval.shape)
    if name == "broadcast_in_dim" and len(operands) == 1:
        return origin.broadcast_in_dim(old, aval.shape, params["broadcast_dimensions"])
    if name == "slice":
        if params["strides"] is not None and any(s != 1 for s in params["strides"]):
            return origin.as_derived()
        return origin.slice(params["start_indices"], params["limit_indices"])
    if name == "dynamic_slice":
        return _stack_slice(origin, old, params["slice_sizes"])
    if name == "gather":
        return _stack_gather(origin, old, params, operands[1].aval.shape, aval)
    return None


def split(eqn, operand) -> list[Origin | None]:
    """The origins of the parts a weight is split into."""
    axis, start, out = eqn.params["axis"], 0, []
    for size in eqn.params["sizes"]:
        starts = [0] * len(operand.aval.shape)
        limits = list(operand.aval.shape)
        starts[axis], limits[axis] = start, start + size
        out.append(operand.origin.slice(starts, limits))
        start += size
    return out


def shard(origin: Origin, shape) -> Origin:
    """The origin of one device's part of a weight, of shape `shape`."""
    axes = []
    for axis, size in zip(origin.axes, shape, strict=False):
        if len(axis) == 1:
            axes.append((origin_lib.Atom(axis[0].axis, size),))
        elif size == 1:
            axes.append(())
        else:
            return origin.as_derived()
    return origin.with_axes(tuple(axes)) if axes else origin


def _stack_slice(origin: Origin, shape, sizes) -> Origin:
    if origin.derived:
        return origin
    axes, stack = list(origin.axes), origin.stack
    for i, (have, size) in enumerate(zip(shape, sizes, strict=True)):
        if size != have:
            stack += tuple(a.axis for a in axes[i] if a.axis is not None)
            axes[i] = () if size == 1 else (origin_lib.Atom(None, size),)
    return dataclasses.replace(origin, axes=tuple(axes), stack=stack)


def _stack_gather(origin: Origin, shape, params, index_shape, aval) -> Origin:
    """A gather that takes whole matrices out of a stack (experts)."""
    numbers = params["dimension_numbers"]
    batched = getattr(numbers, "operand_batching_dims", ())
    if origin.derived or batched or len(numbers.collapsed_slice_dims) != 1:
        return origin.as_derived()
    (axis,) = numbers.collapsed_slice_dims
    kept = [origin.axes[i] for i in range(len(shape)) if i != axis]
    axes: list[Any] = [None] * len(aval.shape)
    for position, atoms in zip(numbers.offset_dims, kept, strict=True):
        axes[position] = atoms
    batch = iter(index_shape[:-1])
    for i, atoms in enumerate(axes):
        if atoms is None:
            size = next(batch)
            axes[i] = () if size == 1 else (origin_lib.Atom(None, size),)
    taken = tuple(a.axis for a in origin.axes[axis] if a.axis is not None)
    return dataclasses.replace(origin, axes=tuple(axes), stack=origin.stack + taken)


def mixed(name, operands) -> Origin | None:
    """A weight scaled or masked by something that depends on the inputs.

    Only for whole matrices: a norm's vector times an activation is an activation.
    """
    if name not in ("mul", "div", "select_n"):
        return None
    weights = [v for v in operands if v.is_weight]
    others = [v for v in operands if v.origin is None]
    for v in weights:
        matrix = sum(n > 1 for n in v.aval.shape) >= 2
        if not matrix or (v.origin is not None and v.origin.broadcast):
            return None
    shapes = {v.aval.shape for v in weights}
    if len(shapes) != 1 or any(_size(v) > _size(weights[0]) for v in others):
        return None
    known = origin_lib.derive([v.origin for v in weights])
    return None if known is None else dataclasses.replace(known, impure=True)


def site_of(eqn, operands) -> tuple[int, str] | None:
    """``(weight operand, kind)`` if the equation is a site."""
    name = eqn.primitive.name
    if name in _PRODUCTS:
        return _product_site(
            operands[:2], "dot" if name == "dot_general" else "ragged_dot"
        )
    if name == "conv_general_dilated":
        return _product_site(operands[:2], "conv")
    table = operands[0]
    if not table.is_weight:
        return None
    sizes, shape = eqn.params["slice_sizes"], table.aval.shape
    if tuple(sizes) == tuple(shape):
        return None
    if all(v.origin is not None for v in operands[1:]):
        return None  # the index is a constant or a loop counter: a stack, not a table
    whole = sum(1 for s, n in zip(sizes, shape, strict=True) if s == n and n > 1)
    return None if whole >= 2 else (0, "lookup")


def _product_site(pair, kind) -> tuple[int, str] | None:
    left, right = pair
    candidates = []
    for i, (value, other) in enumerate(((left, right), (right, left))):
        if value.origin is None:
            continue
        pure = not value.origin.impure
        other_is_activation = other.origin is None
        if other_is_activation or (pure and other.origin.impure):
            if value.is_weight or len(value.aval.shape) >= 2:
                candidates.append((not value.is_weight, not pure, -i, i))
    if not candidates:
        return None
    return min(candidates)[-1], kind


def _size(value: Value) -> int:
    return math.prod(value.aval.shape)
