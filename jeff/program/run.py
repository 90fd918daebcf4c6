"""One interpretation of a traced program: rules, taps and stored weights at its sites.

References:
  Interpreting a jaxpr to change what a program does:
  https://docs.jax.dev/en/latest/notebooks/Writing_custom_interpreters_in_Jax.html.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jeff import base
from jeff.program import compat, control, stored_view
from jeff.program.rules import chain, taking_marks

__all__ = ["Run", "Scope"]


@dataclasses.dataclass(eq=False)
class Run:
    """One interpretation of a program: hooks, and what was noticed on the way.

    Attributes:
      rules: Applied at each site, first outermost.
      tap: ``tap(site, x, y) -> pytree`` to emit, or ``None`` to emit nothing.
      attach: ``attach(y, feed) -> y`` for sites that have a feed.
      tap_marks: Whether `tap` and `attach` act at marks too.
      notes: Lines for the user.
      found: The program being run.
    """

    rules: Sequence[base.Rule] = ()
    tap: Callable[..., Any] | None = None
    attach: Callable[..., Any] | None = None
    tap_marks: bool = False
    notes: list[str] = dataclasses.field(default_factory=list)
    found: Any = None

    @property
    def hooked(self) -> bool:
        """Whether sites need attention even if their weight is dense."""
        return bool(self.rules) or self.tap is not None or self.attach is not None

    @property
    def marks(self) -> bool:
        """Whether marks need attention."""
        return self.tap_marks or bool(taking_marks(self.rules))

    def program(self, jaxpr, values, feeds=None) -> tuple[list[Any], dict[str, Any]]:
        """Runs the whole program.

        Args:
          jaxpr: The traced program.
          values: A value per input; weights may be stored.
          feeds: Side inputs of sites, by name.

        Returns:
          ``(outputs, emitted)``: dense outputs, and by site what its tap emitted.
        """
        scope = Scope((), feeds or {})
        outs, emitted = self.jaxpr(jaxpr, values, (), scope)
        return [v.decode() if base.is_stored(v) else v for v in outs], emitted

    def jaxpr(self, closed, values, path, scope) -> tuple[list[Any], dict[str, Any]]:
        """Runs a program or sub-program, equation by equation.

        Args:
          closed: The program, closed or open.
          values: A value per input.
          path: Where it stands.
          scope: Iterations of the loops around it, and feeds.

        Returns:
          ``(outputs, emitted)``; an output may still be stored.
        """
        jaxpr = compat.open_jaxpr(closed)
        env: dict[Any, Any] = dict(
            zip(jaxpr.constvars, compat.consts_of(closed), strict=True)
        )
        env.update(zip(jaxpr.invars, values, strict=True))
        emitted: dict[str, Any] = {}

        def read(atom):
            return atom.val if compat.is_literal(atom) else env[atom]

        for i, eqn in enumerate(jaxpr.eqns):
            operands = [read(a) for a in eqn.invars]
            outs, new = self.equation(eqn, operands, (*path, i), scope)
            env.update(zip(eqn.outvars, outs, strict=True))
            emitted.update(new)
        return [read(a) for a in jaxpr.outvars], emitted

    def equation(self, eqn, operands, path, scope):
        """Runs one equation: a site, something with sites inside, or anything else.

        What is neither is bound again as it is, with its own derivative.
        """
        found = self.found
        stored = any(base.is_stored(v) for v in operands)
        if path in found.by_path and (self.hooked or stored):
            return self.site(eqn, operands, path, scope)
        if path in found.marks and self.marks:
            return self.mark(eqn, operands, path, scope)
        if path in found.inside and (self.hooked or stored):
            return control.descend(self, eqn, operands, path, scope)
        if path in found.inside_marks and self.marks:
            return control.descend(self, eqn, operands, path, scope)
        if stored and eqn.primitive.name in compat.CALLS:
            return control.descend(self, eqn, operands, path, scope)
        if stored:
            outs = stored_view.moved(eqn, operands)
            if outs is not None:
                if not any(base.is_stored(v) for v in outs):
                    self.note_filled(outs[0].shape)
                return outs, {}
            operands = self.decode_all(operands, eqn.primitive.name)
        return compat.bind(eqn, operands), {}

    def site(self, eqn, operands, path, scope):
        """Runs one site through the rules, and taps it."""
        site, view = self.found.by_path[path]
        site = site.at(scope.iterations)
        values = [
            v.decode() if base.is_stored(v) and i != view.weight else v
            for i, v in enumerate(operands)
        ]
        w = view.w_view(values[view.weight])
        x = view.x_view(values[view.activation])

        def original(x, w):
            return view.run(values, x, w)

        dtype = eqn.outvars[0].aval.dtype
        y = chain(self.rules, site, original, shape=view.y_shape, dtype=dtype)(x, w)
        y, emitted = self.tapped(site, x, y, scope)
        return [view.y_restore(y)], emitted

    def mark(self, eqn, operands, path, scope):
        """Runs one mark through the rules that take marks, and taps it."""
        site = self.found.marks[path].at(scope.iterations)
        (x,) = operands
        no_weight: Any = None

        def original(x, w):
            del w  # there is none
            return eqn.primitive.bind(x, **eqn.params)

        rules = taking_marks(self.rules)
        shape, dtype = site.y_shape, site.dtype
        y = chain(rules, site, original, shape=shape, dtype=dtype)(x, no_weight)
        if not self.tap_marks:
            return [y], {}
        y, emitted = self.tapped(site, x, y, scope)
        return [y], emitted

    def tapped(self, site, x, y, scope):
        """The output with what is attached to it, and what the site's tap emits."""
        if self.attach is not None and site.name in scope.feeds:
            y = self.attach(y, scope.feeds[site.name])
        value = None if self.tap is None else self.tap(site, x, y)
        return y, {} if value is None else {site.name: value}

    def note_filled(self, shape):
        """Notes entries of a stored weight that had to be decoded where taken."""
        self.notes.append(
            f"entries of a stored weight, {_sizes(shape)}, are decoded where they are "
            "taken: those out of bounds are filled"
        )

    def decode_all(self, operands, reason) -> list[Any]:
        """Operands with stored weights decoded, and a note of why.

        Args:
          operands: Values, stored weights among them.
          reason: What they are decoded at.

        Returns:
          The values, all dense.
        """
        out = []
        for v in operands:
            if base.is_stored(v):
                text = f"a stored weight of {_sizes(v.shape)} is decoded at {reason}"
                self.notes.append(text)
                v = v.decode()
            out.append(v)
        return out


@dataclasses.dataclass(frozen=True, eq=False)
class Scope:
    """Where in the loops the interpretation stands.

    Attributes:
      iterations: (Traced) iteration of every loop around, outermost first.
      feeds: Side inputs of sites, by site name, sliced by the loops around.
    """

    iterations: tuple[Any, ...]
    feeds: Mapping[str, Any]

    def inner(self, iteration: Any, feeds: Mapping[str, Any]) -> "Scope":
        """The scope one loop further in.

        Args:
          iteration: Iteration of that loop.
          feeds: Feeds of the sites inside it, its slices.

        Returns:
          The scope.
        """
        return Scope((*self.iterations, iteration), {**self.feeds, **feeds})


def _sizes(shape) -> str:
    return "x".join(map(str, shape))
