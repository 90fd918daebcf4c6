"""The walk: equations of a traced program as a flat data-flow graph with origins.

One pass over the jaxpr gives every value an *origin* (which parameter leaf it is made
of, if any) and a *number* (two values with one number are always equal: value
numbering through casts, jit boundaries and repeated computations). Calls are inlined;
loops and branches become child frames.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from jeff.program import compat
from jeff.program import origin as origin_lib
from jeff.program.origin import Origin

__all__ = ["Frame", "Program", "Step", "Value", "walk"]

# Equations that hand their input on unchanged, one output per input.
_IDENTITIES = frozenset(
    {"copy", "copy_p", "optimization_barrier", "sharding_constraint", "stop_gradient",
     "layout_constraint", "pvary", "pcast", "reshard", "mesh_cast"}
)
# Equations through which a value stays "the same input" for grouping sites.
_TRANSPARENT = _IDENTITIES | {"convert_element_type", "reshape", "squeeze", "expand_dims"}
_PRODUCTS = frozenset({"dot_general", "ragged_dot", "ragged_dot_general"})
SITE_PRIMITIVES = _PRODUCTS | {"conv_general_dilated", "gather", "dynamic_slice"}


class Value:
    """One value of the program: a node's output, an input or a constant.

    Attributes:
      aval: Its shape and dtype.
      number: Value number; equal numbers mean equal values.
      origin: Where it comes from; ``None`` for an activation.
      step: The step that computes it, or ``None``.
      frame: The frame it lives in.
    """

    __slots__ = ("aval", "frame", "literal", "number", "origin", "root", "step")

    def __init__(self, aval, number, origin, frame, step=None, root=None):
        self.aval = aval
        self.number = number
        self.origin: Origin | None = origin
        self.frame = frame
        self.step: Step | None = step
        self.root: Value = self if root is None else root
        self.literal: Any = None

    @property
    def is_weight(self) -> bool:
        """Whether a parameter leaf is in it and no activation."""
        return self.origin is not None and self.origin.is_weight

    def __repr__(self):
        return f"Value({self.aval.str_short()}, #{self.number})"


@dataclasses.dataclass(eq=False)
class Step:
    """One equation after inlining calls.

    Attributes:
      eqn: The equation.
      inputs: Its operands.
      outputs: Its results.
      path: Where the equation stands in the nested jaxpr.
      children: Frames of its sub-programs, if it is a loop or a branch.
      weight: Position of the operand that is a weight, if the step is a site.
      kind: Kind of site, or ``""``.
      custom: Whether the step lies inside a function with its own derivative.
    """

    eqn: Any
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    path: tuple[int, ...]
    children: tuple["Frame", ...] = ()
    weight: int | None = None
    kind: str = ""
    custom: bool = False


@dataclasses.dataclass(eq=False)
class Frame:
    """A straight-line piece of program: the whole, a loop body, or a branch.

    Attributes:
      kind: ``"program"``, ``"scan"``, ``"while"``, ``"while_cond"``, ``"branch"``
        or ``"shard_map"``.
      parent: The frame its equation stands in.
      trips: How often it runs per run of its parent; ``None`` if not known.
      inputs: Values bound on entry.
      outputs: Values returned.
      steps: Its steps, in program order.
      num_consts: Loop-invariant inputs come first.
      num_carry: Then the carried ones; for a scan the rest are slices.
      path: Where its equation stands.
      first: The first value computed in it, by number; equal ones are computed once.
    """

    kind: str
    parent: "Frame | None"
    trips: int | None
    path: tuple[int, ...]
    inputs: tuple[Value, ...] = ()
    outputs: tuple[Value, ...] = ()
    steps: list[Step] = dataclasses.field(default_factory=list)
    num_consts: int = 0
    num_carry: int = 0
    step: Step | None = None
    first: dict[int, Value] = dataclasses.field(default_factory=dict)

    @property
    def loops(self) -> tuple["Frame", ...]:
        """The loop frames around (and including) this one, outermost first."""
        outer = self.parent.loops if self.parent is not None else ()
        looped = self.kind in ("scan", "while", "while_cond")
        return (*outer, self) if looped else outer


@dataclasses.dataclass(eq=False)
class Program:
    """The result of the walk.

    Attributes:
      frame: The outermost frame.
      leaves: The entry value of every parameter leaf, by name.
      sites: Steps in which a weight meets an activation, in program order.
      constants: Arrays captured in closures that are used like weights.
      used: Names of leaves that reach any equation or output.
      opaque: Equations that take a weight and that the walk does not look into.
      consts: Values of the arrays the function closed over.
    """

    frame: Frame
    leaves: dict[str, Value]
    sites: list[Step]
    constants: list[Step]
    used: set[str]
    opaque: list[Step]
    consts: list[Value] = dataclasses.field(default_factory=list)


def walk(traced: Any) -> Program:
    """Walks a traced program (see `jeff.program.trace.Traced`)."""
    return _Walker(traced).run()


class _Walker:
    def __init__(self, traced):
        self.traced = traced
        self.numbers: dict[Any, int] = {}
        self.count = 0
        self.program = Program(
            Frame("program", None, 1, ()), {}, [], [], set(), []
        )
        self.custom = 0
        self.loop: list[tuple[int, ...]] = []

    def run(self) -> Program:
        program, frame = self.program, self.program.frame
        jaxpr = compat.open_jaxpr(self.traced.jaxpr)
        inputs = []
        for i, var in enumerate(jaxpr.invars):
            if i < len(self.traced.names):
                name = self.traced.names[i]
                origin = origin_lib.leaf(name, var.aval.shape)
                value = self.fresh(var.aval, origin, frame)
                program.leaves[name] = value
            else:
                value = self.fresh(var.aval, None, frame)
            inputs.append(value)
        frame.inputs = tuple(inputs)
        consts = [self.fresh(v.aval, origin_lib.constant(), frame)
                  for v in jaxpr.constvars]
        program.consts = consts
        frame.outputs = tuple(self.jaxpr(jaxpr, consts, inputs, frame, ()))
        self.note_used(frame.outputs)
        return program

    # Values.

    def fresh(self, aval, origin, frame, step=None) -> Value:
        self.count += 1
        return Value(aval, self.count, origin, frame, step)

    def numbered(self, key, aval, origin, frame, step) -> Value:
        """A value whose number is shared by every equal computation."""
        value = Value(aval, 0, origin, frame, step)
        try:
            known = self.numbers.get(key)
        except TypeError:
            known, key = None, None
        if known is None:
            self.count += 1
            known = self.count
            if key is not None:
                self.numbers[key] = known
        value.number = known
        return value

    def literal(self, atom, frame) -> Value:
        aval = atom.aval
        key = ("literal", str(aval), atom.val.tobytes() if hasattr(atom.val, "tobytes")
               else repr(atom.val))
        value = self.numbered(key, aval, origin_lib.constant(), frame, None)
        value.literal = atom.val
        return value

    def note_used(self, values: Sequence[Value]):
        for value in values:
            if value.origin is not None:
                self.program.used.update(value.origin.leaves)

    # Equations.

    def jaxpr(self, jaxpr, consts, inputs, frame, path) -> list[Value]:
        """Walks the equations of one jaxpr into `frame`; returns its outputs."""
        env: dict[Any, Value] = dict(zip(jaxpr.constvars, consts, strict=True))
        env.update(zip(jaxpr.invars, inputs, strict=True))

        def read(atom):
            return self.literal(atom, frame) if compat.is_literal(atom) else env[atom]

        for i, eqn in enumerate(jaxpr.eqns):
            operands = tuple(read(a) for a in eqn.invars)
            outputs = self.equation(eqn, operands, frame, (*path, i))
            env.update(zip(eqn.outvars, outputs, strict=True))
        return [read(a) for a in jaxpr.outvars]

    def equation(self, eqn, operands, frame, path) -> Sequence[Value]:
        name = eqn.primitive.name
        weights = any(v.is_weight for v in operands)
        if name in compat.CALLS:
            return self.call(eqn, operands, frame, path)
        if weights:
            if name in compat.CUSTOM_DERIVATIVES:
                self.custom += 1
                outputs = self.call(eqn, operands, frame, path)
                self.custom -= 1
                return outputs
            if name == "scan":
                return self.scan(eqn, operands, frame, path)
            if name == "while":
                return self.while_loop(eqn, operands, frame, path)
            if name == "cond":
                return self.cond(eqn, operands, frame, path)
            if name == "shard_map":
                return self.shard_map(eqn, operands, frame, path)
        return self.plain(eqn, operands, frame, path)

    def plain(self, eqn, operands, frame, path) -> Sequence[Value]:
        name = eqn.primitive.name
        step = Step(eqn, operands, (), path, custom=bool(self.custom))
        frame.steps.append(step)
        if name in SITE_PRIMITIVES and (site := _site(eqn, operands)) is not None:
            step.weight, step.kind = site
            self.note_used([operands[step.weight]])
            if operands[step.weight].is_weight:
                self.program.sites.append(step)
            else:
                self.program.constants.append(step)
            origins: Sequence[Origin | None] = [None] * len(eqn.outvars)
        else:
            origins = self.origins(eqn, operands)
            if any(o is None for o in origins):
                self.note_used(operands)
        key = self.key(eqn, operands)
        step.outputs = tuple(
            self.numbered(None if key is None else (key, i), v.aval, o, frame, step)
            for i, (v, o) in enumerate(zip(eqn.outvars, origins, strict=True))
        )
        for value in step.outputs:
            frame.first.setdefault(value.number, value)
        if name in _TRANSPARENT or _adds_unit_axes(eqn):
            for value, source in zip(step.outputs, operands, strict=False):
                value.root = source.root
        if _has_subprogram(eqn) and any(v.is_weight for v in operands):
            self.program.opaque.append(step)
        return step.outputs

    def key(self, eqn, operands):
        if eqn.effects or _has_subprogram(eqn):
            return None
        params = tuple(sorted(eqn.params.items(), key=lambda item: item[0]))
        key = (eqn.primitive.name, params, tuple(v.number for v in operands))
        try:
            hash(key)
        except TypeError:
            return None
        return key

    def origins(self, eqn, operands) -> Sequence[Origin | None]:
        name, params = eqn.primitive.name, eqn.params
        if name in _IDENTITIES:
            return [v.origin for v in operands[: len(eqn.outvars)]]
        if name == "split" and operands[0].is_weight:
            return _split(eqn, operands[0])
        first = operands[0].origin if operands else None
        if first is not None and first.is_weight:
            moved = _moved(name, params, operands, eqn.outvars[0].aval)
            if moved is not None and moved.stack != first.stack and self.loop:
                moved = dataclasses.replace(moved, loops=(*moved.loops, self.loop[-1]))
            if moved is not None:
                return [moved] * len(eqn.outvars)
        if name == "concatenate":
            return [origin_lib.concatenate([v.origin for v in operands])]
        mixed = origin_lib.derive([v.origin for v in operands])
        if mixed is None:
            mixed = _mixed_weight(name, operands)
        return [mixed] * len(eqn.outvars)

    # Calls, loops, branches.

    def call(self, eqn, operands, frame, path) -> Sequence[Value]:
        closed = compat.inner_jaxpr(eqn)
        jaxpr = compat.open_jaxpr(closed)
        consts = [self.fresh(v.aval, origin_lib.constant(), frame)
                  for v in jaxpr.constvars]
        for value, const in zip(consts, compat.consts_of(closed), strict=False):
            value.literal = const
        return self.jaxpr(jaxpr, consts, operands, frame, (*path, 0))

    def child(self, kind, frame, trips, path, inputs, closed, **layout) -> Frame:
        """Walks a sub-program into a frame of its own."""
        child = Frame(kind, frame, trips, path, inputs=tuple(inputs), **layout)
        for value in inputs:
            if value.frame is None:
                value.frame = child
        jaxpr = compat.open_jaxpr(closed)
        consts = [self.fresh(v.aval, origin_lib.constant(), child)
                  for v in jaxpr.constvars]
        for value, const in zip(consts, compat.consts_of(closed), strict=False):
            value.literal = const
        looped = kind in ("scan", "while")
        self.loop += [path] if looped else []
        child.outputs = tuple(self.jaxpr(jaxpr, consts, inputs, child, path))
        self.loop = self.loop[:-1] if looped else self.loop
        return child

    def finish(self, eqn, operands, frame, path, children, origins) -> Sequence[Value]:
        step = Step(eqn, tuple(operands), (), path, tuple(children),
                    custom=bool(self.custom))
        frame.steps.append(step)
        for child in children:
            child.step = step
        step.outputs = tuple(
            self.fresh(v.aval, o, frame, step)
            for v, o in zip(eqn.outvars, origins, strict=True)
        )
        for value in step.outputs:
            frame.first.setdefault(value.number, value)
        return step.outputs

    def scan(self, eqn, operands, frame, path) -> Sequence[Value]:
        num_consts, num_carry = compat.scan_layout(eqn)
        closed = eqn.params["jaxpr"]
        body = compat.open_jaxpr(closed)
        stop = num_consts + num_carry
        inputs = list(operands[:num_consts])
        for i in range(num_consts, stop):
            carried = body.outvars[i - num_consts] is body.invars[i]
            counter = _is_counter(body, i, i - num_consts, operands[i])
            inputs.append(operands[i] if carried else self.fresh(
                body.invars[i].aval, origin_lib.constant() if counter else None, None))
        for outer, var in zip(operands[stop:], body.invars[stop:], strict=True):
            origin = outer.origin
            if origin is not None and origin.is_weight:
                origin = origin.scanned((*path, 0))
            inputs.append(self.fresh(var.aval, origin, None))
        child = self.child("scan", frame, eqn.params["length"], (*path, 0), inputs,
                           closed, num_consts=num_consts, num_carry=num_carry)
        return self.finish(eqn, operands, frame, path, [child],
                           self.loop_origins(eqn, operands, child, num_carry))

    def loop_origins(self, eqn, operands, child, num_carry):
        """Outputs of a loop are activations unless nothing but parameters enters."""
        mixed = origin_lib.derive([v.origin for v in operands])
        origins = [mixed] * len(eqn.outvars)
        first = child.num_consts
        for i in range(num_carry):
            if child.outputs[i] is child.inputs[first + i]:
                origins[i] = operands[len(operands) - len(child.inputs) + first + i].origin
        return origins

    def while_loop(self, eqn, operands, frame, path) -> Sequence[Value]:
        params = eqn.params
        nc, nb = params["cond_nconsts"], params["body_nconsts"]
        body = compat.open_jaxpr(params["body_jaxpr"])
        carry = []
        for i, init in enumerate(operands[nc + nb :]):
            same = body.outvars[i] is body.invars[nb + i]
            counter = _is_counter(body, nb + i, i, init)
            carry.append(init if same else self.fresh(
                body.invars[nb + i].aval,
                origin_lib.constant() if counter else None, None))
        condition = self.child("while_cond", frame, None, (*path, 0),
                               [*operands[:nc], *carry], params["cond_jaxpr"],
                               num_consts=nc, num_carry=len(carry))
        body_inputs = [*operands[nc : nc + nb], *carry]
        child = self.child("while", frame, None, (*path, 1), body_inputs,
                           params["body_jaxpr"], num_consts=nb, num_carry=len(carry))
        for value in carry:
            if value.frame is condition:
                value.frame = child
        origins = self.loop_origins(eqn, operands, child, len(carry))
        return self.finish(eqn, operands, frame, path, [condition, child], origins)

    def cond(self, eqn, operands, frame, path) -> Sequence[Value]:
        children = [
            self.child("branch", frame, 1, (*path, i), operands[1:], branch)
            for i, branch in enumerate(eqn.params["branches"])
        ]
        origins = [
            origin_lib.derive([operands[0].origin, *(c.outputs[i].origin
                                                     for c in children)])
            for i in range(len(eqn.outvars))
        ]
        return self.finish(eqn, operands, frame, path, children, origins)

    def shard_map(self, eqn, operands, frame, path) -> Sequence[Value]:
        body = compat.open_jaxpr(eqn.params["jaxpr"])
        inputs = []
        for outer, var in zip(operands, body.invars, strict=True):
            origin = outer.origin
            if origin is not None and origin.is_weight:
                whole = var.aval.shape == outer.aval.shape
                origin = origin if whole else _resized(origin, var.aval.shape)
            inputs.append(self.fresh(var.aval, origin, None))
        child = self.child("shard_map", frame, 1, (*path, 0), inputs,
                           eqn.params["jaxpr"])
        mixed = origin_lib.derive([v.origin for v in operands])
        return self.finish(eqn, operands, frame, path, [child],
                           [mixed] * len(eqn.outvars))


def _is_counter(body, input_index, output_index, init) -> bool:
    """Whether a carried value only counts iterations: ``i + literal``."""
    if init.origin is None or init.is_weight or init.aval.shape:
        return False
    var, out = body.invars[input_index], body.outvars[output_index]
    for eqn in body.eqns:
        if out in eqn.outvars:
            return (
                eqn.primitive.name == "add"
                and var in eqn.invars
                and any(compat.is_literal(a) for a in eqn.invars)
            )
    return False


def _has_subprogram(eqn) -> bool:
    return any(
        hasattr(v, "eqns") or hasattr(v, "jaxpr")
        or (isinstance(v, tuple) and any(hasattr(b, "eqns") for b in v))
        for v in eqn.params.values()
    )


def _adds_unit_axes(eqn) -> bool:
    return (
        eqn.primitive.name == "broadcast_in_dim"
        and len(eqn.invars) == 1
        and _size(eqn.outvars[0].aval) == _size(eqn.invars[0].aval)
    )


def _size(aval) -> int:
    total = 1
    for n in aval.shape:
        total *= n
    return total


def _resized(origin: Origin, shape) -> Origin:
    axes = []
    for axis, size in zip(origin.axes, shape, strict=False):
        if len(axis) == 1:
            axes.append((origin_lib.Atom(axis[0].axis, size),))
        elif size == 1:
            axes.append(())
        else:
            return origin.as_derived()
    return origin.with_axes(tuple(axes)) if axes else origin


def _split(eqn, operand) -> list[Origin | None]:
    axis, start, out = eqn.params["axis"], 0, []
    for size in eqn.params["sizes"]:
        starts = [0] * len(operand.aval.shape)
        limits = list(operand.aval.shape)
        starts[axis], limits[axis] = start, start + size
        out.append(operand.origin.slice(starts, limits))
        start += size
    return out


def _moved(name, params, operands, aval) -> Origin | None:
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


def _mixed_weight(name, operands) -> Origin | None:
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
    if len(shapes) != 1 or any(_size(v.aval) > _size(weights[0].aval) for v in others):
        return None
    known = origin_lib.derive([v.origin for v in weights])
    return None if known is None else dataclasses.replace(known, impure=True)


def _site(eqn, operands) -> tuple[int, str] | None:
    """``(weight operand, kind)`` if the equation is a site."""
    name = eqn.primitive.name
    if name in _PRODUCTS:
        return _product_site(operands[:2], "dot" if name == "dot_general" else "ragged_dot")
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
