"""How often a ``while`` equation runs, when its test and step say so.

A loop whose bounds are constants is a ``scan``, or a ``while`` whose carry has a
counter: known at the start, changed by a known step in the body, compared with a
known bound in the test. Scalar integers are followed through a program to find them.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.core
import jax.numpy as jnp
import numpy as np

from jeff.program import compat, marks

__all__ = ["Known", "WhileInputs", "of_while", "while_inputs"]

_ARITHMETIC = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "max": max,
    "min": min,
    "neg": lambda a: -a,
    "convert_element_type": lambda a: a,
    "copy": lambda a: a,
    "stop_gradient": lambda a: a,
    marks.PRIMITIVE: lambda a: a,
}
_MIRRORED = {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le", "ne": "ne"}


class Known:
    """Scalar integers of a program whose values are known without running it.

    Examples:
      >>> import jax
      >>> jaxpr = jax.make_jaxpr(lambda n: (n + 1) * 2)(0)
      >>> known = Known(jaxpr, [4])
      >>> for eqn in jaxpr.eqns:
      ...     known.read(eqn)
      >>> known.values(jaxpr.jaxpr.outvars)
      [10]
    """

    def __init__(self, jaxpr: Any = None, inputs: Sequence[int | None] = ()):
        """Starts from the inputs and constants of a program.

        Args:
          jaxpr: The program, closed or open, or None to know literals only.
          inputs: For each of its inputs the value, or None.
        """
        self._values: dict[Any, int] = {}
        if jaxpr is None:
            return
        inner = compat.open_jaxpr(jaxpr)
        for variable, value in zip(inner.invars, inputs, strict=True):
            if value is not None:
                self._values[variable] = value
        for variable, value in zip(
            inner.constvars, compat.consts_of(jaxpr), strict=False
        ):
            if _is_integer(value):
                self._values[variable] = int(value)

    def value(self, atom: Any) -> int | None:
        """What is known of a variable or literal.

        Args:
          atom: An input or output of an equation.

        Returns:
          Its value, or None.
        """
        if compat.is_literal(atom):
            return int(atom.val) if _is_integer(atom.val) else None
        return self._values.get(atom)

    def values(self, atoms: Sequence[Any]) -> list[int | None]:
        """What is known of several.

        Args:
          atoms: Inputs or outputs of equations.

        Returns:
          For each its value, or None.
        """
        return [self.value(atom) for atom in atoms]

    def read(self, eqn: Any) -> None:
        """Learns the output of an equation if it follows from what is known.

        Args:
          eqn: The next equation, in program order.
        """
        rule = _ARITHMETIC.get(eqn.primitive.name)
        operands = self.values(eqn.invars)
        if rule is None or None in operands:
            return
        (out,) = eqn.outvars
        result = rule(*operands)
        if out.aval.shape == () and _fits(result, out.aval.dtype):
            self._values[out] = result


class WhileInputs(NamedTuple):
    """What is known inside a ``while``, the same in every iteration.

    Attributes:
      test: For each input of its test the value, or None.
      body: For each input of its body the value, or None.
    """

    test: list[int | None]
    body: list[int | None]


def while_inputs(eqn: Any, known: Known) -> WhileInputs:
    """What is known inside a loop: constants, and carries that it never changes.

    Args:
      eqn: A ``while`` equation.
      known: What is known around it.

    Returns:
      What is known of the inputs of its test and of its body.
    """
    test_consts, body_consts, start = _parts(eqn, known)
    body = compat.open_jaxpr(eqn.params["body_jaxpr"])
    carried = body.invars[len(body_consts) :]
    fixed = [
        value if out is carry else None
        for value, carry, out in zip(start, carried, body.outvars, strict=True)
    ]
    return WhileInputs(test_consts + fixed, body_consts + fixed)


def of_while(eqn: Any, known: Known) -> tuple[int | None, bool]:
    """Number of iterations of a ``while`` equation.

    Args:
      eqn: The equation.
      known: What is known around it.

    Returns:
      ``(trips, exact)``: the number of iterations, or the smallest bound on it that
      the test states beside other conditions (`exact` is then false), or None.

    Examples:
      >>> import jax
      >>> jaxpr = jax.make_jaxpr(
      ...     lambda x: jax.lax.while_loop(lambda i: i < 10, lambda i: i + 3, 1)
      ... )(0.0)
      >>> of_while(jaxpr.eqns[0], Known())
      (3, True)
    """
    test, body = eqn.params["cond_jaxpr"], eqn.params["body_jaxpr"]
    inputs = while_inputs(eqn, known)
    test_consts, body_consts, start = _parts(eqn, known)
    bounds: list[int] = []
    exact = True
    for comparison in _conjunction(compat.open_jaxpr(test)):
        trips = None
        for i, first in enumerate(start):
            if first is None or comparison is None:
                continue
            step = _offsets(body, inputs.body, len(body_consts) + i).get(
                compat.open_jaxpr(body).outvars[i]
            )
            place = len(test_consts) + i
            if step:
                trips = _trips(test, inputs.test, place, comparison, first, step)
            if trips is not None:
                break
        exact = exact and trips is not None
        bounds += [] if trips is None else [trips]
    return (min(bounds), exact) if bounds else (None, False)


def _parts(eqn: Any, known: Known) -> tuple[list, list, list]:
    values = known.values(eqn.invars)
    n_test, n_body = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    split = n_test + n_body
    return values[:n_test], values[n_test:split], values[split:]


def _conjunction(test: Any) -> list[Any]:
    """Equations that all have to hold; None for one that is no comparison."""
    producers = {v: eqn for eqn in test.eqns for v in eqn.outvars}

    def parts(atom: Any) -> list[Any]:
        eqn = None if compat.is_literal(atom) else producers.get(atom)
        if eqn is not None and eqn.primitive.name in ("and", "convert_element_type"):
            return [part for operand in eqn.invars for part in parts(operand)]
        return [eqn if eqn is not None and eqn.primitive.name in _MIRRORED else None]

    return parts(test.outvars[0])


def _offsets(jaxpr: Any, inputs: Sequence[int | None], place: int) -> dict[Any, int]:
    """Variables that are input number `place` plus a known integer: that integer."""
    inner, known = compat.open_jaxpr(jaxpr), Known(jaxpr, inputs)
    offsets = {inner.invars[place]: 0}

    def of(atom: Any) -> int | None:
        return None if compat.is_literal(atom) else offsets.get(atom)

    for eqn in inner.eqns:
        known.read(eqn)
        name = eqn.primitive.name
        out: Any = eqn.outvars[0] if eqn.outvars else None
        moved = [of(atom) for atom in eqn.invars]
        fixed = known.values(eqn.invars)
        if name in ("convert_element_type", "copy", marks.PRIMITIVE):
            if moved[0] is not None and jnp.issubdtype(out.aval.dtype, jnp.integer):
                offsets[out] = moved[0]
        elif name == "add":
            for offset, other in zip(moved, reversed(fixed), strict=True):
                if offset is not None and other is not None:
                    offsets[out] = offset + other
        elif name == "sub" and moved[0] is not None and fixed[1] is not None:
            offsets[out] = moved[0] - fixed[1]
    return offsets


def _trips(test, inputs, place, comparison, first: int, step: int) -> int | None:
    """Iterations until ``counter + offset`` no longer compares as it must."""
    known, offsets = Known(test, inputs), _offsets(test, inputs, place)
    for eqn in compat.open_jaxpr(test).eqns:
        known.read(eqn)
    left, right = comparison.invars
    relation = comparison.primitive.name
    if compat.is_literal(left) or left not in offsets:
        left, right, relation = right, left, _MIRRORED[relation]
    bound = known.value(right)
    if compat.is_literal(left) or left not in offsets or bound is None:
        return None
    distance = bound - (first + offsets[left])  # counter = bound after distance / step
    if relation in ("gt", "ge"):  # the mirror image of lt and le
        distance, step = -distance, -step
    if relation == "ne":
        whole = distance % step == 0 and distance // step >= 0
        return distance // step if whole else None
    if relation in ("le", "ge"):
        distance += 1
    if distance <= 0:
        return 0
    return math.ceil(distance / step) if step > 0 else None


def _is_integer(value: Any) -> bool:
    if isinstance(value, jax.core.Tracer):
        return False
    dtype = getattr(value, "dtype", None)
    if dtype is None:
        return isinstance(value, int) and not isinstance(value, bool)
    return jnp.issubdtype(dtype, jnp.integer) and np.shape(value) == ()


def _fits(value: int, dtype: Any) -> bool:
    if not jnp.issubdtype(dtype, jnp.integer):
        return False
    info = jnp.iinfo(dtype)
    return info.min <= value <= info.max
