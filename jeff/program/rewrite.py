"""Rewriting: the same program with a rule applied wherever a weight is used.

References:
  Interpreting a jaxpr to change what a program does:
  https://docs.jax.dev/en/latest/notebooks/Writing_custom_interpreters_in_Jax.html.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from jeff import base
from jeff.program import compat, control, stored_view, trace
from jeff.program.rules import chain, check_sites
from jeff.program.sites import find

__all__ = ["Rewritten", "rewrite"]


def rewrite(apply: Callable[..., Any], *rules: base.Rule) -> "Rewritten":
    """The same program with each rule applied at each site.

    The result is an ordinary traceable function of the same signature: it goes under
    ``jit``, ``vmap``, ``grad`` and ``shard_map``. Leaves of `params` may be
    `StoredWeight`; a site whose weight no rule takes care of decodes it. Equations
    without a site inside are run as they are, with their own derivative and kernel.

    Args:
      apply: ``apply(params, *inputs, **kwargs)``, any JAX function, or a rewritten
        one, whose rules then stay outermost.
      *rules: Rules ``rule(site, op, x, w) -> y``; the first is outermost. One that
        has a method ``check(sites)`` is told the `Sites` first, and may refuse them.

    Returns:
      A function of the same signature; ``.notes(params, *inputs)`` tells which stored
      weights were decoded and where a rule could not be applied. When it runs and a
      rule returns no array, or one of another shape or kind of dtype than the site's
      output, it raises an error that names the rule and the site.

    Raises:
      TypeError: If a rule is not callable.

    Examples:
      >>> import jax.numpy as jnp
      >>> def double(site, op, x, w):
      ...     return 2 * op(x, w)
      >>> apply = rewrite(lambda p, x: x @ p["w"], double)
      >>> print(apply({"w": jnp.ones((2, 1))}, jnp.ones((1, 2))))
      [[4.]]
    """
    for rule in rules:
        if not callable(rule):
            raise TypeError(f"a rule must be a function, got {rule!r}")
    if isinstance(apply, Rewritten):
        return Rewritten(apply.apply, (*apply.rules, *rules))
    return Rewritten(apply, rules)


class Rewritten:
    """A program with rules at its sites (made by `jeff.rewrite`)."""

    def __init__(self, apply: Callable[..., Any], rules: Sequence[base.Rule]):
        """Keeps the program and its rules; use `rewrite`, which checks them."""
        self.apply = apply
        self.tracer = trace.tracer_of(apply)
        self.rules = tuple(rules)

    def __call__(self, params: Any, *inputs: Any, **kwargs: Any) -> Any:
        """Runs the program; same output structure, shapes and dtypes as `apply`."""
        leaves = jax.tree.leaves(params, is_leaf=base.is_stored)
        if not self.rules and not any(map(base.is_stored, leaves)):
            try:  # there is nothing to rewrite
                return self.apply(params, *inputs, **kwargs)
            except NameError as error:
                clear = trace.axis_error(error)
                raise clear from (None if clear is error else error)
        out, _ = self.run(Run(self.rules), params, inputs, kwargs)
        return out

    def run(
        self, run: "Run", params: Any, inputs: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        """Runs with other hooks.

        Args:
          run: The hooks.
          params: Params tree; leaves may be stored.
          inputs: Inputs of the program.
          kwargs: Keyword inputs.

        Returns:
          ``(out, taps)``: the output, and by site's name what its tap emitted.
        """
        traced = self.tracer.trace(params, inputs, kwargs)
        run.found = find(traced)
        check_sites(run.rules, run.found.sites)
        values = trace.program_inputs(params, inputs, kwargs)
        outs, emitted = run.program(traced.jaxpr, values)
        taps = {s.name: emitted[s.name] for s in run.found.sites if s.name in emitted}
        return jax.tree.unflatten(traced.out_tree, outs), taps

    def notes(self, params: Any, *inputs: Any, **kwargs: Any) -> tuple[str, ...]:
        """What the rewriting did that a user should know, one line each.

        Args:
          params: The parameters, stored weights included.
          *inputs: Inputs, or their shapes.
          **kwargs: Keyword inputs.

        Returns:
          One line per stored weight decoded other than by its site's rule, and per
          place a rule could not reach or a weight could not be followed to. Nothing
          is computed.

        Examples:
          >>> import jax.numpy as jnp
          >>> from jeff.quantize import QuantConfig, quantize
          >>> w = quantize(jnp.ones((8, 4)), QuantConfig(bits=4, group_size=8))
          >>> masked = rewrite(lambda p, x, mask: x @ (p["w"] * mask))
          >>> masked.notes({"w": w}, jnp.ones((1, 8)), jnp.ones((8, 4)))
          ('a stored weight of 8x4 is decoded at mul',)
        """
        run = Run(self.rules)
        jax.eval_shape(
            lambda p, a, k: self.run(run, p, a, k)[0], params, inputs, dict(kwargs)
        )
        lost = (f"not followed: {line}" for line in run.found.sites.opaque)
        return tuple(dict.fromkeys((*run.notes, *lost)))


@dataclasses.dataclass(eq=False)
class Run:
    """One interpretation of a program: hooks, and what was noticed on the way.

    Attributes:
      rules: Applied at each site, first outermost.
      tap: ``tap(site, x, y) -> pytree`` to emit, or ``None`` to emit nothing.
      attach: ``attach(y, feed) -> y`` for sites that have a feed.
      notes: Lines for the user.
      found: The program being run.
    """

    rules: Sequence[base.Rule] = ()
    tap: Callable[..., Any] | None = None
    attach: Callable[..., Any] | None = None
    notes: list[str] = dataclasses.field(default_factory=list)
    found: Any = None

    @property
    def hooked(self) -> bool:
        """Whether sites need attention even if their weight is dense."""
        return bool(self.rules) or self.tap is not None or self.attach is not None

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
        stored = any(base.is_stored(v) for v in operands)
        if path in self.found.by_path and (self.hooked or stored):
            return self.site(eqn, operands, path, scope)
        if path in self.found.inside and (self.hooked or stored):
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
        if self.attach is not None and site.name in scope.feeds:
            y = self.attach(y, scope.feeds[site.name])
        emitted = {}
        if self.tap is not None:
            value = self.tap(site, x, y)
            if value is not None:
                emitted[site.name] = value
        return [view.y_restore(y)], emitted

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
