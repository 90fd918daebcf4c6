"""The one place that knows what differs between JAX versions.

Seen on 0.10 and 0.12: sub-programs are ``ClosedJaxpr`` or ``Jaxpr``; ``scan`` states
its layout as counts or as flat trees; binding an equation needs another call.
"""

from collections.abc import Sequence
from typing import Any

import jax.extend.core as jex

__all__ = [
    "CALLS",
    "CUSTOM_DERIVATIVES",
    "bind",
    "consts_of",
    "inner_jaxpr",
    "is_literal",
    "open_jaxpr",
    "scan_layout",
    "shard_map_axes",
]

# Equations that just run their sub-program.
CALLS = frozenset(
    {"jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint"}
)
# Equations whose sub-program carries a derivative of its own.
CUSTOM_DERIVATIVES = frozenset(
    {"custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"}
)
_SUBPROGRAM = ("jaxpr", "call_jaxpr", "fun_jaxpr")


def is_literal(atom: Any) -> bool:
    """Whether an equation's input is a literal rather than a variable."""
    return isinstance(atom, jex.Literal)


def consts_of(jaxpr: Any) -> Sequence[Any]:
    """Values of a sub-program's own constants (none for an open jaxpr)."""
    return tuple(getattr(jaxpr, "consts", ()))


def inner_jaxpr(eqn: Any) -> Any:
    """The sub-program of a call-like equation."""
    for name in _SUBPROGRAM:
        if name in eqn.params:
            return eqn.params[name]
    raise ValueError(f"equation {eqn.primitive.name!r} has no sub-program")


def open_jaxpr(jaxpr: Any) -> Any:
    """The equations and variables of a closed or open jaxpr."""
    return getattr(jaxpr, "jaxpr", jaxpr)


def scan_layout(eqn: Any) -> tuple[int, int]:
    """``(num_consts, num_carry)`` of a scan equation."""
    params = eqn.params
    if "num_carry" in params:
        return params["num_consts"], params["num_carry"]
    consts, carry, _ = params["ft_in"].unpack()
    return len(consts), len(carry)


def shard_map_axes(eqn: Any) -> set[Any]:
    """Names of the mesh axes a ``shard_map`` equation makes manual."""
    for name in ("newly_manual_axes", "manual_axes"):
        if name in eqn.params:
            return set(eqn.params[name])
    raise ValueError("the shard_map equation does not name its manual axes")


def bind(eqn: Any, operands: Sequence[Any]) -> list[Any]:
    """Runs one equation untouched, with its own parameters and derivative rules.

    Args:
      eqn: Any equation of a jaxpr.
      operands: One value per ``eqn.invars`` (values at literals are ignored).

    Returns:
      One value per ``eqn.outvars``.
    """
    inputs: dict[Any, Any] = {}
    for atom, value in zip(eqn.invars, operands, strict=True):
        if not is_literal(atom):
            inputs[atom] = value
    outputs = [
        v if not isinstance(v, jex.DropVar) else jex.Var(v.aval) for v in eqn.outvars
    ]
    single = eqn.replace(outvars=outputs)
    variables = list(inputs)
    info = _debug_info(len(variables), len(outputs))
    jaxpr = jex.Jaxpr(
        (), variables, outputs, [single], effects=eqn.effects, debug_info=info
    )
    return jex.jaxpr_as_fun(jex.ClosedJaxpr(jaxpr, ()))(*inputs.values())


def _debug_info(inputs: int, outputs: int) -> Any:
    return jex.DebugInfo(
        "equation",
        "jeff.rewrite",
        tuple(f"in{i}" for i in range(inputs)),
        tuple(f"out{i}" for i in range(outputs)),
    )
