"""Finding the sites of a program."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jax.core import Tracer

from jeff.program import operation, trace, walk
from jeff.program.presentation import Presentation
from jeff.program.site import Part, Site, Sites
from jeff.program.uses import Uses

__all__ = ["Found", "find", "sites"]


@dataclasses.dataclass(eq=False)
class Found:
    """A program with its sites: what the rewriting, tapping and cutting share.

    Attributes:
      traced: The trace it was found in.
      program: The walked program.
      sites: Its sites.
      steps: The step of each site, by the site's name.
      by_path: The site and its presentation, by the path of the equation; no marks.
      inside: Paths of all equations that have such a site inside them.
      marks: The marks, by the path of the equation.
      inside_marks: Paths of all equations that have a mark inside them.
      memo: What others derived from this program, so that it is derived once.
    """

    traced: trace.Traced
    program: walk.Program
    sites: Sites
    steps: dict[str, walk.Step]
    by_path: dict[tuple[int, ...], tuple[Site, Presentation]]
    inside: frozenset[tuple[int, ...]]
    marks: dict[tuple[int, ...], Site]
    inside_marks: frozenset[tuple[int, ...]]
    memo: dict[Any, Any] = dataclasses.field(default_factory=dict)


def sites(
    apply: Callable[..., Any],
    params: Any,
    *inputs: Any,
    axis_sizes: Mapping[str, int] | None = None,
    **kwargs: Any,
) -> Sites:
    """Every place of a program where a parameter meets an activation, and every mark.

    The program is traced, never run; arguments may be `jax.ShapeDtypeStruct`. Leaves
    are followed through casts, reshapes, transposes, slices, ``jit``, ``scan``,
    ``while``, ``cond``, ``remat``, ``custom_jvp`` and ``custom_vjp``.

    Args:
      apply: ``apply(params, *inputs, **kwargs)``, any JAX function.
      params: Any pytree; leaves may be `StoredWeight`.
      *inputs: Inputs of the program.
      axis_sizes: Sizes of named axes the program reduces over, if it is meant to run
        inside ``vmap(axis_name=...)`` or ``shard_map``.
      **kwargs: Keyword inputs.

    Returns:
      The sites in program order, with what else was found (see `Sites`).

    Raises:
      TypeError: If a leaf of `params` or an input is no array or number.
      ValueError: If the program uses a named axis whose size was not given, or a
        `jeff.mark` has the name of a leaf.

    Examples:
      >>> import jax.numpy as jnp
      >>> def mlp(p, x):
      ...     return jnp.tanh(x @ p["up"]) @ p["down"]
      >>> params = {"up": jnp.ones((4, 8)), "down": jnp.ones((8, 2))}
      >>> for s in sites(mlp, params, jnp.ones((3, 4))):
      ...     print(s.name, s.shape, s.macs, s.producer)
      up (4, 8) 96 input
      down (8, 2) 48 tanh
    """
    return find(trace.tracer_of(apply).trace(params, inputs, kwargs, axis_sizes)).sites


_FOUND: "dict[int, tuple[Any, Found]]" = {}
_FOUND_LIMIT = 64


def find(traced: trace.Traced) -> Found:
    """Walks a trace and describes its sites.

    Args:
      traced: The trace.

    Returns:
      The program with its sites. The last few traces are remembered, so that the same
      trace gives the same object.
    """
    key = id(traced.jaxpr)
    if key in _FOUND and _FOUND[key][0] is traced.jaxpr:
        return _FOUND[key][1]
    found = _find(traced)
    if any(isinstance(c, Tracer) for c in traced.jaxpr.consts):
        return found  # belongs to an outer trace, which must not outlive itself
    while len(_FOUND) >= _FOUND_LIMIT:
        _FOUND.pop(next(iter(_FOUND)))
    _FOUND[key] = (traced.jaxpr, found)
    return found


def _find(traced: trace.Traced) -> Found:
    program = walk.walk(traced)
    seen: dict[str, int] = {}
    uses = Uses.of(program)
    names: dict[int, str] = {}
    listed, steps, by_path, marks = [], {}, {}, {}
    for step in program.sites:
        label = step.label
        assert label is not None
        seen[label] = seen.get(label, -1) + 1
        name = f"{label}@{seen[label]}" if seen[label] else label
        if step.weight is None:
            if label in program.leaves:
                raise ValueError(f"mark {label!r} has the name of a leaf of params")
            marks[step.path] = _describe_mark(step, name, uses, names)
            listed.append(marks[step.path])
            steps[name] = step
            continue
        names[id(step)] = name
        try:
            view = operation.present(step.eqn, step.weight, step.kind)
        except NotImplementedError:
            program.opaque.append(step)
            continue
        site = _describe(step, view, name, uses, names)
        listed.append(site)
        steps[name] = step
        by_path[step.path] = (site, view)
    result = Sites(listed)
    at_sites = {n for s in listed for n in s.leaves}
    result.constants = tuple(
        f"{step.weight_value.aval.str_short()} in {step.kind}"
        for step in program.constants
    )
    result.unused = tuple(n for n in program.leaves if n not in program.used)
    result.elementwise = tuple(
        n for n in program.leaves if n in program.used and n not in at_sites
    )
    result.opaque = tuple(
        f"{step.eqn.primitive.name} of "
        + "+".join(n for v in step.inputs for n in v.leaves)
        for step in program.opaque
    )
    result.opaque += tuple(dict.fromkeys(program.lost))
    result.lost_marks = tuple(program.lost_marks)
    return Found(
        traced, program, result, steps, by_path, _around(by_path), marks, _around(marks)
    )


def _around(paths: Iterable[tuple[int, ...]]) -> frozenset[tuple[int, ...]]:
    """Paths of the equations that have those of `paths` inside them."""
    return frozenset(path[:i] for path in paths for i in range(1, len(path)))


def _describe(step, view, name, uses, names) -> Site:
    weight = step.inputs[step.weight]
    origin = weight.origin
    place = _place(step, uses)
    contract = view.contract if step.kind != "lookup" else _row_axes(step)
    views = [o for o in (origin.parts or (origin,)) if o.is_view and o.axes]
    x = step.inputs[view.activation]
    return Site(
        name=name,
        leaf=origin.leaves[0],
        leaves=origin.leaves,
        derived=origin.derived,
        shape=view.w_shape,
        x_shape=view.x_shape,
        y_shape=view.y_shape,
        dtype=step.outputs[0].aval.dtype,
        weight_dtype=weight.aval.dtype,
        parts=tuple(_part(o, contract) for o in views),
        macs=view.macs * math.prod(t for t in place["trips"] if t is not None),
        nbytes=math.prod(weight.aval.shape) * weight.aval.dtype.itemsize,
        input_id=x.root.number,
        producer=_producer(x.root, names),
        **place,
        **_kernel(step),
    )


def _describe_mark(step, name, uses, names) -> Site:
    (value,) = step.inputs
    return Site(
        name=name,
        leaf=step.label,
        leaves=(),
        derived=False,
        shape=(),
        x_shape=value.aval.shape,
        y_shape=value.aval.shape,
        dtype=value.aval.dtype,
        weight_dtype=None,
        parts=(),
        macs=0,
        nbytes=0,
        input_id=value.root.number,
        producer=_producer(value.root, names),
        marked_macs=step.eqn.params["macs"],
        **_place(step, uses),
    )


def _place(step, uses) -> dict[str, Any]:
    """What a site knows of where it stands: its use, and the loops around it."""
    loops = _frame(step).loops
    strides = uses.strides.get(id(step), {})
    return {
        "kind": step.kind,
        "use": uses.first[id(step)],
        "trips": tuple(f.trips for f in loops),
        "custom": step.custom,
        "path": step.path,
        "strides": tuple(strides.get(f.path, 0) for f in loops),
    }


def _kernel(step) -> dict[str, Any]:
    if step.kind != "conv":
        return {}
    spatial = step.eqn.params["dimension_numbers"].rhs_spec[2:]
    shape = step.inputs[step.weight].aval.shape
    return {
        "window": tuple(shape[axis] for axis in spatial),
        "groups": step.eqn.params["feature_group_count"],
    }


def _part(origin, contract: tuple[int, ...]) -> Part:
    atoms = [a.axis for i in contract for a in origin.axes[i] if a.axis is not None]
    return Part(
        origin.leaves[0], tuple(dict.fromkeys(atoms)), tuple(sorted(set(origin.stack)))
    )


def _frame(step: walk.Step) -> walk.Frame:
    return step.outputs[0].frame


def _row_axes(step) -> tuple[int, ...]:
    shape = step.inputs[0].aval.shape
    sizes = step.eqn.params["slice_sizes"]
    return tuple(i for i, s in enumerate(sizes) if s == shape[i] and s > 1)


def _producer(value: walk.Value, names: dict[int, str]) -> str:
    step = value.step
    if step is None:
        return "input"
    if id(step) in names:
        return names[id(step)]
    if step.children:
        return step.eqn.primitive.name
    for operand in step.inputs:
        if operand.is_weight:
            return "leaf:" + operand.leaves[0]
    return step.eqn.primitive.name
