"""Rewriting: the same program with a rule applied wherever a weight is used.

References:
  Interpreting a jaxpr to change what a program does:
  https://docs.jax.dev/en/latest/notebooks/Writing_custom_interpreters_in_Jax.html.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from jeff import base
from jeff.program import trace
from jeff.program.rules import check_sites
from jeff.program.run import Run
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
        One with an attribute ``marks`` that is true acts at the program's marks too
        (`jeff.mark`), where `w` is ``None``; others never see them.

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
        self, run: Run, params: Any, inputs: Sequence[Any], kwargs: Mapping[str, Any]
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
          One line per stored weight decoded other than by its site's rule, per
          place a rule could not reach or a weight could not be followed to, and per
          mark that is no site. Nothing is computed.

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
        sites = run.found.sites
        lost = [f"not followed: {line}" for line in sites.opaque]
        lost += [f"no site: the mark {line}" for line in sites.lost_marks]
        return tuple(dict.fromkeys((*run.notes, *lost)))
