"""Marks: a named value of a program, a site without a weight.

A mark is an equation of its own, whose output is its input. It survives ``jit``, loops,
``vmap``, ``grad`` and ``remat`` as any equation does, so that the walk finds it in any
traced program. It compiles to nothing, but for a mapped axis that moves to the front.

References:
  Adding a primitive to JAX with its rules:
  https://docs.jax.dev/en/latest/jax-primitives.html.
"""

from typing import Any

import jax
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np
from jax.interpreters import ad, batching, mlir

from jeff.program import compat

__all__ = ["PRIMITIVE", "mark", "names_inside"]

PRIMITIVE = "jeff_mark"
"""Name of the primitive; its parameters are `name` and `macs`."""


def mark(name: str, y: Any, *, macs: int | None = None) -> jax.Array:
    """Names a value, so that rules and taps can reach it: attention scores, a sum.

    `jeff.sites` lists it as a site of kind ``"mark"``. A rule acts there if it says
    that it takes marks (see `jeff.rewrite`), as `jeff.faults.on_features` does where
    its `where` chooses the mark; everything else passes through. A name may occur
    again, in a loop or written out: further occurrences are ``name@1``, ``name@2`` ...,
    and every one of them, every iteration too, has draws of its own (`Site.key`).

    Args:
      name: Its name; no leaf of the params may be called so. It is taken as it is: a
        number in it is no index of a layer.
      y: An array of any shape and dtype, or a number.
      macs: Multiplications behind one element, for fault models that count them
        (`jeff.faults.mibb_at_sites`); ``None``: not known.

    Returns:
      The same array. Its derivative is the identity, and is not marked. Under
      ``vmap`` the mapped axis comes first in what is marked.

    Raises:
      TypeError: If `name` is no string, or `y` no array or number.
      ValueError: If `name` is empty or has an ``@`` in it, or `macs` is no positive
        integer; where sites are looked for, if a leaf has this name.

    Examples:
      >>> import jeff
      >>> def attend(p, x):
      ...     scores = mark("scores", x @ p["q"] @ x.T, macs=4)
      ...     return jax.nn.softmax(scores) @ x
      >>> params, x = {"q": jnp.ones((4, 4))}, jnp.ones((3, 4))
      >>> print(jeff.sites(attend, params, x))
      site    kind  weight  loops  MACs  bytes  input  producer
      q       dot   4x4     -      48    64     2      input
      scores  mark  -       -      0     0      5      dot_general
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, got {name!r}")
    if not name or "@" in name:
        raise ValueError(f"name must be a word without '@', got {name!r}")
    if macs is not None:
        whole = isinstance(macs, int | np.integer) and not isinstance(macs, bool)
        if not whole or macs < 1:
            raise ValueError(f"macs must be a positive integer, got {macs!r}")
        macs = int(macs)
    return _mark_p.bind(jnp.asarray(y), name=name, macs=macs)


def names_inside(eqn: Any) -> tuple[str, ...]:
    """Names of the marks in the sub-programs of an equation.

    Args:
      eqn: Any equation of a jaxpr.

    Returns:
      The names, in program order.

    Examples:
      >>> def total(xs):
      ...     return jax.lax.scan(lambda c, x: (mark("sum", c + x), None), 0.0, xs)[0]
      >>> names_inside(jax.make_jaxpr(total)(jnp.ones(3)).eqns[-1])
      ('sum',)
    """
    names: tuple[str, ...] = ()
    for inner in compat.subprograms(eqn):
        for step in compat.open_jaxpr(inner).eqns:
            if step.primitive.name == PRIMITIVE:
                names += (step.params["name"],)
            else:
                names += names_inside(step)
    return names


_mark_p = jex.Primitive(PRIMITIVE)
_mark_p.def_impl(lambda y, **_: y)
_mark_p.def_abstract_eval(lambda y, **_: y)
mlir.register_lowering(_mark_p, lambda ctx, y, **_: [y])


def _jvp(primals, tangents, **params):
    return _mark_p.bind(*primals, **params), tangents[0]


def _transpose(cotangent, y, **_):
    del y  # linear in it
    return [cotangent]


def _batch(operands, axes, **params):
    """The mapped axis goes first: `y_shape` does not depend on where it was."""
    return _mark_p.bind(jnp.moveaxis(operands[0], axes[0], 0), **params), 0


ad.primitive_jvps[_mark_p] = _jvp
ad.primitive_transposes[_mark_p] = _transpose
batching.primitive_batchers[_mark_p] = _batch
