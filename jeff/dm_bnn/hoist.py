"""What the turns of a loop over voters share, computed once before the loop.

A map computes what does not depend on its index once. A loop does so in every turn,
unless the compiler sees it, and then a count of the program does not. Here it is taken
out of the program itself.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from jeff.program import compat

__all__ = ["hoisted"]


def hoisted(branch: Callable[[jax.Array], Any], number: Any) -> Callable[..., Any]:
    """The part of a branch that depends on its number; the rest has run.

    What is made of single numbers alone (counters, constants, keys) stays inside: it
    takes less to make it again than to keep it. What has side effects stays too.

    Args:
      branch: ``branch(number)``, any JAX function; it may close over traced values. It
        is traced once, and its outputs are arrays.
      number: A scalar or the shape of one.

    Returns:
      A function like `branch`.

    Examples:
      >>> import jax.numpy as jnp
      >>> x, w = jnp.ones((1, 2)), jnp.ones((2, 3))
      >>> rest = hoisted(lambda i: x @ w + i, jnp.float32(0))
      >>> print(rest(jnp.float32(3)))
      [[5. 5. 5.]]
      >>> [e.primitive.name for e in jax.make_jaxpr(rest)(jnp.float32(3)).eqns]
      ['add']

    References:
      Loop-invariant code motion: A. Aho, M. Lam, R. Sethi and J. Ullman, "Compilers",
      2nd edition, Pearson 2006, section 9.5.1.
    """
    made, shape = jax.make_jaxpr(branch, return_shape=True)(number)
    program, treedef = made.jaxpr, jax.tree.structure(shape)
    early, late = _parted(program)
    late = _needed(late, program.outvars)
    made_late = {*program.invars, *(v for eqn in late for v in eqn.outvars)}
    read = dict.fromkeys(_variables([*(a for e in late for a in e.invars)]))
    read |= dict.fromkeys(_variables(program.outvars))
    kept = [v for v in read if v not in made_late]
    before = compat.evaluation(_needed(early, kept), program.constvars, kept)
    after = compat.evaluation(late, [*program.invars, *kept], program.outvars)
    values = before(*made.consts)

    def rest(number):
        return treedef.unflatten(after(number, *values))

    return rest


def _parted(program: Any) -> tuple[list[Any], list[Any]]:
    """Equations that may run before the loop and those that may run inside.

    Those that are made of single numbers are among both.
    """
    varying = set(program.invars)
    arrays = {v for v in program.constvars if v.aval.size > 1}
    early, late = [], []
    for eqn in program.eqns:
        if eqn.effects or not varying.isdisjoint(_variables(eqn.invars)):
            late.append(eqn)
            varying.update(eqn.outvars)
            continue
        early.append(eqn)
        literals = [a for a in eqn.invars if compat.is_literal(a)]
        if any(a.aval.size > 1 for a in literals) or not arrays.isdisjoint(
            _variables(eqn.invars)
        ):
            arrays.update(eqn.outvars)
        else:
            late.append(eqn)
    return early, late


def _needed(equations: Sequence[Any], wanted: Sequence[Any]) -> list[Any]:
    """The equations that what is wanted is computed by, and those with effects."""
    found, seen = [], set(_variables(wanted))
    for eqn in reversed(equations):
        if eqn.effects or not seen.isdisjoint(eqn.outvars):
            found.append(eqn)
            seen.update(_variables(eqn.invars))
    return found[::-1]


def _variables(atoms: Sequence[Any]) -> Iterator[Any]:
    return (a for a in atoms if not compat.is_literal(a))
