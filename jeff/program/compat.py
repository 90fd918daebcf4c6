"""The one place that knows what differs between JAX versions.

Seen on 0.10 and 0.12: sub-programs are ``ClosedJaxpr`` or ``Jaxpr``; ``scan`` states
its layout as counts or as flat trees; binding an equation needs another call.

References:
  What a jaxpr is made of: https://docs.jax.dev/en/latest/jaxpr.html; its types:
  ``jax.extend.core``, https://docs.jax.dev/en/latest/jax.extend.core.html.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax.extend.core as jex

__all__ = [
    "CALLS",
    "CUSTOM_DERIVATIVES",
    "bind",
    "consts_of",
    "evaluation",
    "has_subprogram",
    "inner_jaxpr",
    "is_literal",
    "open_jaxpr",
    "scan_layout",
    "shard_map_axes",
    "subprograms",
]

# Equations that just run their sub-program.
CALLS = frozenset(
    {"jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint"}
)
# Equations whose sub-program carries a derivative of its own.
CUSTOM_DERIVATIVES = frozenset(
    {"custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"}
)
_SUBPROGRAM = ("jaxpr", "call_jaxpr", "fun_jaxpr", "call")


def is_literal(atom: Any) -> bool:
    """Whether an equation's input is a literal rather than a variable.

    Args:
      atom: One of ``eqn.invars``.

    Returns:
      True for a literal; its value is ``atom.val``.

    Examples:
      >>> import jax
      >>> eqn = jax.make_jaxpr(lambda x: x + 1.0)(2.0).eqns[0]
      >>> [is_literal(atom) for atom in eqn.invars]
      [False, True]
    """
    return isinstance(atom, jex.Literal)


def consts_of(jaxpr: Any) -> Sequence[Any]:
    """Values of a sub-program's own constants.

    Args:
      jaxpr: A closed or open jaxpr.

    Returns:
      A value per ``constvars`` of a closed jaxpr; none for an open one.

    Examples:
      >>> import jax
      >>> import numpy as np
      >>> captured = np.arange(3.0)
      >>> (const,) = consts_of(jax.make_jaxpr(lambda x: x + captured)(captured))
      >>> print(const)
      [0. 1. 2.]
    """
    return tuple(getattr(jaxpr, "consts", ()))


def inner_jaxpr(eqn: Any) -> Any:
    """The sub-program of a call-like equation.

    Args:
      eqn: An equation of one of the primitives `CALLS` or `CUSTOM_DERIVATIVES`.

    Returns:
      Its closed or open jaxpr.

    Raises:
      ValueError: If the equation has none.

    Examples:
      >>> import jax
      >>> call = jax.make_jaxpr(jax.jit(lambda x: -x))(1.0).eqns[0]
      >>> open_jaxpr(inner_jaxpr(call)).eqns[0].primitive.name
      'neg'
    """
    for name in _SUBPROGRAM:
        if name in eqn.params:
            return eqn.params[name]
    raise ValueError(f"equation {eqn.primitive.name!r} has no sub-program")


def open_jaxpr(jaxpr: Any) -> Any:
    """The equations and variables of a closed or open jaxpr.

    Args:
      jaxpr: A closed or open jaxpr.

    Returns:
      The open jaxpr.
    """
    return getattr(jaxpr, "jaxpr", jaxpr)


def subprograms(eqn: Any) -> Iterator[Any]:
    """All sub-programs of an equation, whatever it is: bodies, branches, conditions.

    Args:
      eqn: An equation of a jaxpr.

    Yields:
      Its closed and open jaxprs, by the names of their parameters.

    Examples:
      >>> import jax
      >>> f = lambda x: jax.lax.cond(x > 0, lambda y: -y, lambda y: y, x)
      >>> len(list(subprograms(jax.make_jaxpr(f)(1.0).eqns[-1])))
      2
    """
    for _, value in sorted(eqn.params.items()):
        for inner in value if isinstance(value, list | tuple) else (value,):
            if hasattr(open_jaxpr(inner), "eqns"):
                yield inner


def has_subprogram(eqn: Any) -> bool:
    """Whether an equation has a sub-program: a loop, a branch, a call, a kernel.

    Args:
      eqn: An equation of a jaxpr.

    Returns:
      Whether `subprograms` finds any.

    Examples:
      >>> import jax
      >>> eqns = jax.make_jaxpr(lambda x: jax.nn.relu(-x))(1.0).eqns
      >>> [has_subprogram(eqn) for eqn in eqns]
      [False, True]
    """
    return any(True for _ in subprograms(eqn))


def scan_layout(eqn: Any) -> tuple[int, int]:
    """How many inputs of a scan are constants, and how many are carried.

    Args:
      eqn: A ``scan`` equation.

    Returns:
      ``(num_consts, num_carry)``; the inputs after these are scanned over.

    Examples:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> def total(xs, scale):
      ...     return jax.lax.scan(lambda c, x: (c + scale * x, None), 0.0, xs)[0]
      >>> scan_layout(jax.make_jaxpr(total)(jnp.ones(3), 2.0).eqns[-1])
      (1, 1)
    """
    params = eqn.params
    if "num_carry" in params:
        return params["num_consts"], params["num_carry"]
    consts, carry, _ = params["ft_in"].unpack()
    return len(consts), len(carry)


def shard_map_axes(eqn: Any) -> set[Any]:
    """Names of the mesh axes a ``shard_map`` equation makes manual.

    Args:
      eqn: A ``shard_map`` equation.

    Returns:
      The names.

    Raises:
      ValueError: If the equation does not say.
    """
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

    Examples:
      >>> import jax
      >>> eqn = jax.make_jaxpr(jax.nn.relu)(1.0).eqns[0]
      >>> print(bind(eqn, [-2.0])[0])
      0.0
    """
    inputs: dict[Any, Any] = {}
    for atom, value in zip(eqn.invars, operands, strict=True):
        if not is_literal(atom):
            inputs[atom] = value
    outputs = [
        v if not isinstance(v, jex.DropVar) else jex.Var(v.aval) for v in eqn.outvars
    ]
    run = evaluation([eqn.replace(outvars=outputs)], list(inputs), outputs)
    return run(*inputs.values())


def evaluation(
    equations: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[Any]
) -> Callable[..., list[Any]]:
    """Some equations of a jaxpr as a function.

    Args:
      equations: In an order in which they can run.
      inputs: Variables that they read and do not make.
      outputs: Variables and literals.

    Returns:
      A function of a value per input, which gives a value per output.

    Examples:
      >>> import jax
      >>> program = jax.make_jaxpr(lambda x: jax.numpy.sin(2 * x))(0.0).jaxpr
      >>> double = program.eqns[0]
      >>> run = evaluation([double], program.invars, double.outvars)
      >>> print(run(3.0)[0])
      6.0
    """
    effects = frozenset().union(*(eqn.effects for eqn in equations))
    info = _debug_info(len(inputs), len(outputs))
    jaxpr = jex.Jaxpr((), inputs, outputs, equations, effects=effects, debug_info=info)
    return jex.jaxpr_as_fun(jex.ClosedJaxpr(jaxpr, ()))


def _debug_info(inputs: int, outputs: int) -> Any:
    return jex.DebugInfo(
        "equation",
        "jeff.rewrite",
        tuple(f"in{i}" for i in range(inputs)),
        tuple(f"out{i}" for i in range(outputs)),
    )
