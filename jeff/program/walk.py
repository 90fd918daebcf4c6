"""The walk: equations of a traced program as a flat data-flow graph with origins.

One pass over the jaxpr gives every value an *origin* (which parameter leaf it is made
of, if any) and a *number* (two values with one number are always equal: value
numbering through casts, jit boundaries and repeated computations). Calls are inlined;
loops and branches become child frames.

References:
  Value numbering: Alpern, Wegman and Zadeck, "Detecting equality of variables in
  programs", POPL 1988.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from jeff.program import compat, follow, marks, subframes
from jeff.program import origin as origin_lib
from jeff.program.graph import Frame, Program, Step, Value
from jeff.program.origin import Origin

__all__ = ["Frame", "Program", "Step", "Value", "walk"]


def walk(traced: Any) -> Program:
    """Walks a traced program.

    Args:
      traced: A `jeff.program.trace.Traced`.

    Returns:
      Its data-flow graph.
    """
    return _Walker(traced).run()


class _Walker:
    def __init__(self, traced):
        self.traced = traced
        self.numbers: dict[Any, int] = {}
        self.count = 0
        self.program = Program(Frame("program", None, 1, ()), {}, [], [], set(), [])
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
        consts = [
            self.fresh(v.aval, origin_lib.constant(), frame) for v in jaxpr.constvars
        ]
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
        key = (
            "literal",
            str(aval),
            atom.val.tobytes() if hasattr(atom.val, "tobytes") else repr(atom.val),
        )
        value = self.numbered(key, aval, origin_lib.constant(), frame, None)
        value.literal = atom.val
        return value

    def note_used(self, values: Sequence[Value]):
        for value in values:
            if value.origin is not None:
                self.program.used.update(value.origin.leaves)

    def note_carried(self, value: Value, loop: str):
        """Records a weight that a loop carries and changes: it is not followed in."""
        if value.is_weight and value.origin is not None:
            self.note_used([value])
            names = "+".join(value.origin.leaves)
            self.program.lost.append(
                f"{names} is carried through {loop} that changes it, so its uses there "
                "are no sites"
            )

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
        if name in compat.CALLS:
            return self.call(eqn, operands, frame, path)
        if any(v.is_weight for v in operands) or marks.names_inside(eqn):
            if name in compat.CUSTOM_DERIVATIVES:
                self.custom += 1
                outputs = self.call(eqn, operands, frame, path)
                self.custom -= 1
                return outputs
            if name in subframes.WALKS:
                return subframes.WALKS[name](self, eqn, operands, frame, path)
        return self.plain(eqn, operands, frame, path)

    def plain(self, eqn, operands, frame, path) -> Sequence[Value]:
        name = eqn.primitive.name
        step = Step(eqn, operands, (), path, custom=bool(self.custom))
        frame.steps.append(step)
        if (
            name in follow.SITE_PRIMITIVES
            and (site := follow.site_of(eqn, operands)) is not None
        ):
            step.weight, step.kind = site
            self.note_used([operands[step.weight]])
            if operands[step.weight].is_weight:
                self.program.sites.append(step)
            else:
                self.program.constants.append(step)
            origins: Sequence[Origin | None] = [None] * len(eqn.outvars)
        else:
            if name == marks.PRIMITIVE:
                self.marked(step)
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
        if follow.keeps_order(eqn):
            for value, source in zip(step.outputs, operands, strict=False):
                value.root = source.root
        if compat.has_subprogram(eqn) and any(v.is_weight for v in operands):
            self.program.opaque.append(step)
        for mark in marks.names_inside(eqn):
            self.program.lost_marks.append(f"{mark} (inside a {name})")
        return step.outputs

    def marked(self, step):
        """Lists a mark as a site, unless it is of a weight, where there is no site."""
        if step.inputs[0].is_weight:
            weight = "+".join(step.inputs[0].leaves)
            self.program.lost_marks.append(f"{step.eqn.params['name']} (of {weight})")
        else:
            step.kind = "mark"
            self.program.sites.append(step)

    def key(self, eqn, operands):
        """What equal values have in common; marks are told apart, as draws are."""
        is_mark = eqn.primitive.name == marks.PRIMITIVE
        if eqn.effects or is_mark or compat.has_subprogram(eqn):
            return None
        params = tuple(sorted(eqn.params.items(), key=lambda item: item[0]))
        key = (eqn.primitive.name, params, tuple(v.number for v in operands))
        try:
            hash(key)
        except TypeError:
            return None
        return key

    def origins(self, eqn, operands) -> Sequence[Origin | None]:
        name = eqn.primitive.name
        if name in follow.IDENTITIES:
            return [v.origin for v in operands[: len(eqn.outvars)]]
        if name == "split" and operands[0].is_weight:
            return follow.split(eqn, operands[0])
        first = operands[0].origin if operands else None
        if first is not None and first.is_weight:
            moved = follow.moved(eqn, operands)
            if moved is not None and moved.stack != first.stack and self.loop:
                moved = dataclasses.replace(moved, loops=(*moved.loops, self.loop[-1]))
            if moved is not None:
                return [moved] * len(eqn.outvars)
        if name == "concatenate":
            return [origin_lib.concatenate([v.origin for v in operands])]
        mixed = origin_lib.derive([v.origin for v in operands])
        if mixed is None:
            mixed = follow.mixed(name, operands)
        return [mixed] * len(eqn.outvars)

    # Calls, loops, branches.

    def call(self, eqn, operands, frame, path) -> Sequence[Value]:
        closed = compat.inner_jaxpr(eqn)
        jaxpr = compat.open_jaxpr(closed)
        consts = [
            self.fresh(v.aval, origin_lib.constant(), frame) for v in jaxpr.constvars
        ]
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
        consts = [
            self.fresh(v.aval, origin_lib.constant(), child) for v in jaxpr.constvars
        ]
        for value, const in zip(consts, compat.consts_of(closed), strict=False):
            value.literal = const
        looped = kind in ("scan", "while")
        self.loop += [path] if looped else []
        child.outputs = tuple(self.jaxpr(jaxpr, consts, inputs, child, path))
        self.loop = self.loop[:-1] if looped else self.loop
        return child

    def finish(self, eqn, operands, frame, path, children, origins) -> Sequence[Value]:
        step = Step(
            eqn, tuple(operands), (), path, tuple(children), custom=bool(self.custom)
        )
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
