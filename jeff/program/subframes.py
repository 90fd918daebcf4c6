"""Walking into loops, branches and shards: each becomes a frame of its own.

Every function takes the walker (`jeff.program.walk`), the equation, its operands, the
frame it stands in and its path, and returns the values of its outputs.
"""

import dataclasses
from collections.abc import Callable, Sequence

from jeff.program import compat, follow
from jeff.program import origin as origin_lib
from jeff.program.graph import Value
from jeff.program.origin import Origin

__all__ = ["WALKS"]


def _scan(walker, eqn, operands, frame, path) -> Sequence[Value]:
    num_consts, num_carry = compat.scan_layout(eqn)
    closed = eqn.params["jaxpr"]
    body = compat.open_jaxpr(closed)
    stop = num_consts + num_carry
    inputs = list(operands[:num_consts])
    for i in range(num_consts, stop):
        carried = body.outvars[i - num_consts] is body.invars[i]
        if not carried:
            walker.note_carried(operands[i], "a scan")
        counter = _is_counter(body, i, i - num_consts, operands[i])
        inputs.append(
            operands[i]
            if carried
            else walker.fresh(
                body.invars[i].aval,
                origin_lib.constant() if counter else None,
                None,
            )
        )
    for outer, var in zip(operands[stop:], body.invars[stop:], strict=True):
        origin = outer.origin
        if origin is not None and origin.is_weight:
            origin = origin.scanned((*path, 0))
        inputs.append(walker.fresh(var.aval, origin, None))
    child = walker.child(
        "scan",
        frame,
        eqn.params["length"],
        (*path, 0),
        inputs,
        closed,
        num_consts=num_consts,
        num_carry=num_carry,
    )
    return walker.finish(
        eqn,
        operands,
        frame,
        path,
        [child],
        _loop_origins(eqn, operands, child, num_carry),
    )


def _loop_origins(eqn, operands, child, num_carry):
    """Outputs of a loop are activations unless nothing but parameters enters."""
    mixed = origin_lib.derive([v.origin for v in operands])
    origins = [mixed] * len(eqn.outvars)
    first = child.num_consts
    for i in range(num_carry):
        if child.outputs[i] is child.inputs[first + i]:
            origins[i] = operands[len(operands) - len(child.inputs) + first + i].origin
    return origins


def _while(walker, eqn, operands, frame, path) -> Sequence[Value]:
    params = eqn.params
    nc, nb = params["cond_nconsts"], params["body_nconsts"]
    body = compat.open_jaxpr(params["body_jaxpr"])
    carry = []
    for i, init in enumerate(operands[nc + nb :]):
        same = body.outvars[i] is body.invars[nb + i]
        if not same:
            walker.note_carried(init, "a while loop")
        counter = _is_counter(body, nb + i, i, init)
        carry.append(
            init
            if same
            else walker.fresh(
                body.invars[nb + i].aval,
                origin_lib.constant() if counter else None,
                None,
            )
        )
    condition = walker.child(
        "while_cond",
        frame,
        None,
        (*path, 0),
        [*operands[:nc], *carry],
        params["cond_jaxpr"],
        num_consts=nc,
        num_carry=len(carry),
    )
    body_inputs = [*operands[nc : nc + nb], *carry]
    child = walker.child(
        "while",
        frame,
        None,
        (*path, 1),
        body_inputs,
        params["body_jaxpr"],
        num_consts=nb,
        num_carry=len(carry),
    )
    for value in carry:
        if value.frame is condition:
            value.frame = child
    origins = _loop_origins(eqn, operands, child, len(carry))
    return walker.finish(eqn, operands, frame, path, [condition, child], origins)


def _cond(walker, eqn, operands, frame, path) -> Sequence[Value]:
    children = [
        walker.child("branch", frame, 1, (*path, i), operands[1:], branch)
        for i, branch in enumerate(eqn.params["branches"])
    ]
    origins = [
        _chosen(operands[0].origin, [c.outputs[i].origin for c in children])
        for i in range(len(eqn.outvars))
    ]
    return walker.finish(eqn, operands, frame, path, children, origins)


def _chosen(index: Origin | None, branches: Sequence[Origin | None]) -> Origin | None:
    """The origin of what a branch returns; a weight chosen at run time is impure."""
    known = origin_lib.derive(branches)
    if (
        index is not None
        or known is None
        or not all(o is not None and o.is_weight for o in branches)
    ):
        return origin_lib.derive([index, *branches])
    return dataclasses.replace(known.as_derived(), impure=True)


def _shard_map(walker, eqn, operands, frame, path) -> Sequence[Value]:
    body = compat.open_jaxpr(eqn.params["jaxpr"])
    inputs = []
    for outer, var in zip(operands, body.invars, strict=True):
        origin = outer.origin
        if origin is not None and origin.is_weight:
            whole = var.aval.shape == outer.aval.shape
            origin = origin if whole else follow.shard(origin, var.aval.shape)
        inputs.append(walker.fresh(var.aval, origin, None))
    child = walker.child("shard_map", frame, 1, (*path, 0), inputs, eqn.params["jaxpr"])
    mixed = origin_lib.derive([v.origin for v in operands])
    return walker.finish(
        eqn, operands, frame, path, [child], [mixed] * len(eqn.outvars)
    )


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


# What to call for an equation that has a parameter leaf among its operands.
WALKS: dict[str, Callable[..., Sequence[Value]]] = {
    "cond": _cond,
    "scan": _scan,
    "shard_map": _shard_map,
    "while": _while,
}
