"""How an origin passes through an equation, and which equations are sites.

Pure functions of one equation and its operands; the walk (`jeff.program.walk`) applies
them in program order.
"""

import dataclasses
import math

from jeff.program import indexing, marks
from jeff.program import origin as origin_lib
from jeff.program.graph import Value
from jeff.program.origin import Origin

__all__ = [
    "IDENTITIES",
    "SITE_PRIMITIVES",
    "keeps_order",
    "mixed",
    "moved",
    "shard",
    "site_of",
    "split",
]

_PRODUCTS = frozenset({"dot_general", "ragged_dot", "ragged_dot_general"})
SITE_PRIMITIVES = _PRODUCTS | {"conv_general_dilated", "gather", "dynamic_slice"}
# Equations that hand their input on unchanged, one output per input.
IDENTITIES = frozenset(
    {
        "copy",
        "copy_p",
        "optimization_barrier",
        "sharding_constraint",
        "stop_gradient",
        "layout_constraint",
        "pvary",
        "pcast",
        "reshard",
        "mesh_cast",
        marks.PRIMITIVE,
    }
)
# Equations through which a value stays "the same input" for grouping sites.
_TRANSPARENT = IDENTITIES | {
    "convert_element_type",
    "expand_dims",
    "reshape",
    "squeeze",
}


def keeps_order(eqn) -> bool:
    """Whether the output of an equation is its input, entry by entry, up to the shape.

    Args:
      eqn: An equation with an input.

    Returns:
      Whether it is: then both are "the same input" of the sites that read them.

    Examples:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> fn = lambda x: x.reshape(6).astype(int).sum()
      >>> [keeps_order(e) for e in jax.make_jaxpr(fn)(jnp.ones((2, 3))).eqns]
      [True, True, False]
    """
    name = eqn.primitive.name
    if name in _TRANSPARENT:
        return name != "reshape" or eqn.params["dimensions"] is None
    return (
        name == "broadcast_in_dim"
        and len(eqn.invars) == 1
        and math.prod(eqn.outvars[0].aval.shape) == math.prod(eqn.invars[0].aval.shape)
    )


def moved(eqn, operands) -> Origin | None:
    """The origin of a weight after an equation that only moves it.

    Args:
      eqn: The equation.
      operands: Its operands; the first has a parameter leaf in it.

    Returns:
      The origin of the output, or ``None`` if the equation does more than move it.

    Examples:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> eqn = jax.make_jaxpr(jnp.transpose)(jnp.ones((2, 3))).eqns[0]
      >>> w = Value(eqn.invars[0].aval, 0, origin_lib.leaf("w", (2, 3)), None)
      >>> moved(eqn, [w]).axes
      ((Atom(axis=1, size=3),), (Atom(axis=0, size=2),))
    """
    name, params, aval = eqn.primitive.name, eqn.params, eqn.outvars[0].aval
    origin, old = operands[0].origin, operands[0].aval.shape
    if name == "convert_element_type":
        return origin
    if name == "reshape":
        order = params["dimensions"]  # vmap's reshapes also transpose
        read = origin if order is None else origin.transpose(order)
        return read.reshape(aval.shape)
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
    if name in ("dynamic_slice", "gather"):
        return indexing.follow(origin, eqn)
    return None


def split(eqn, operand) -> list[Origin | None]:
    """The origins of the parts a weight is split into.

    Args:
      eqn: A ``split`` equation.
      operand: What it splits, a value with a parameter leaf in it.

    Returns:
      An origin per part.
    """
    axis, start, out = eqn.params["axis"], 0, []
    for size in eqn.params["sizes"]:
        starts = [0] * len(operand.aval.shape)
        limits = list(operand.aval.shape)
        starts[axis], limits[axis] = start, start + size
        out.append(operand.origin.slice(starts, limits))
        start += size
    return out


def shard(origin: Origin, shape) -> Origin:
    """The origin of one device's part of a weight.

    Args:
      origin: Origin of the whole weight.
      shape: Shape of the part.

    Returns:
      The origin of the part; derived if a part of a merged axis cannot be followed.

    Examples:
      >>> shard(origin_lib.leaf("w", (8, 3)), (2, 3)).axes
      ((Atom(axis=0, size=2),), (Atom(axis=1, size=3),))
    """
    axes = []
    for axis, size in zip(origin.axes, shape, strict=False):
        if len(axis) == 1:
            axes.append((origin_lib.Atom(axis[0].axis, size),))
        elif size == 1:
            axes.append(())
        else:
            return origin.as_derived()
    return origin.with_axes(tuple(axes)) if axes else origin


def mixed(name, operands) -> Origin | None:
    """A weight scaled or masked by something that depends on the inputs.

    Only for whole matrices: a norm's vector times an activation is an activation.

    Args:
      name: Name of the primitive.
      operands: Its operands.

    Returns:
      A derived origin that is impure, or ``None``: then the output is an activation.
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
    """Whether an equation is a site, and in which role its weight is.

    Args:
      eqn: An equation of one of the `SITE_PRIMITIVES`.
      operands: Its operands.

    Returns:
      ``(weight, kind)``: the position of the weight and the kind of the site; or
      ``None``, if no weight meets an activation, or if a whole entry of a stack is
      taken, which is followed on to its product.
    """
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
