"""Taps: a reduction of every site's input and output, or of its cotangent.

A cotangent is reduced where the backward pass makes it: the forward pass hands a site's
output on together with a *probe* of zeros, whose gradient is defined to be the
reduction.

References:
  ``jax.custom_vjp``,
  https://docs.jax.dev/en/latest/notebooks/Custom_derivative_rules_for_Python_code.html.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jeff.program import trace
from jeff.program.rewrite import Rewritten, rewrite
from jeff.program.run import Run
from jeff.program.site import Site
from jeff.program.sites import find

__all__ = ["tap", "tap_cotangents"]


def tap(
    apply: Callable[..., Any],
    reduce: Callable[[jax.Array, jax.Array], Any],
    *,
    where: Callable[[Site], bool] | None = None,
    axis_sizes: Mapping[str, int] | None = None,
) -> Callable[..., tuple[Any, dict[str, Any]]]:
    """The same program, which also returns ``reduce(x, y)`` for every site.

    Args:
      apply: ``apply(params, *inputs, **kwargs)``, plain or rewritten.
      reduce: Function of a site's input ``[*batch, ..., K]`` and output
        ``[*batch, ..., N]`` (indices and rows for a look-up; a mark's value, twice, if
        no rule changes it) to a small pytree.
      where: Which sites to tap, marks (`jeff.mark`) among them; all but the marks if
        not given.
      axis_sizes: Sizes of named axes that the program reduces over and nobody binds;
        every member of such an axis gets the same arguments.

    Returns:
      ``tapped(params, *inputs, **kwargs) -> (out, taps)`` with `taps` by site name.
      A scan stacks its iterations along a leading axis, a while loop adds them up
      (without its condition), and the branches of a ``cond`` not taken give zeros.

    Raises:
      TypeError: If `reduce` is not callable or, when the program runs, returns
        something else than arrays; the site is named.

    Examples:
      >>> import jax.numpy as jnp
      >>> tapped = tap(lambda p, x: x @ p["w"], lambda x, y: jnp.abs(x).max())
      >>> out, taps = tapped({"w": jnp.ones((2, 3))}, jnp.array([[1.0, -4.0]]))
      >>> print(taps["w"])
      4.0
    """
    if not callable(reduce):
        raise TypeError(f"reduce must be a function of (x, y), got {reduce!r}")
    program = apply if isinstance(apply, Rewritten) else rewrite(apply)

    def emit(site, x, y):
        if where is not None and not where(site):
            return None
        return _arrays(reduce(x, y), site)

    def run(params, inputs, kwargs):
        hooks = Run(program.rules, tap=emit, tap_marks=where is not None)
        return program.run(hooks, params, inputs, kwargs)

    def tapped(params, *inputs, **kwargs):
        return trace.with_axes(run, axis_sizes)(params, inputs, kwargs)

    return tapped


def tap_cotangents(
    apply: Callable[..., Any],
    reduce: Callable[[jax.Array], jax.Array],
    *,
    where: Callable[[Site], bool] | None = None,
    axis_sizes: Mapping[str, int] | None = None,
) -> Callable[..., tuple[Any, dict[str, jax.Array]]]:
    """A loss that also returns ``reduce(dL/dy)`` for every site.

    The reduction happens inside the backward pass, layer by layer, so no array of
    all cotangents ever exists.

    Args:
      apply: ``apply(params, *inputs, **kwargs) -> loss`` with a scalar loss.
      reduce: Function of a site's cotangent ``[*batch, ..., N]`` to a float array.
      where: Which sites to tap; all but the marks if not given.
      axis_sizes: As for `tap`.

    Returns:
      ``tapped(params, *inputs, **kwargs) -> (loss, taps)``; `taps` by site name, with
      one leading axis per scan around the site. Sites inside a while loop or inside a
      function with its own derivative have no cotangent here and are left out.

    Raises:
      TypeError: If `reduce` is not callable or does not return one array.
      ValueError: If the program's output is not one scalar, or `reduce` returns no
        floats.

    Examples:
      >>> import jax.numpy as jnp
      >>> loss = lambda p, x: (x @ p["w"]).sum()
      >>> tapped = tap_cotangents(loss, lambda g: jnp.abs(g).mean(-1))
      >>> value, taps = tapped({"w": jnp.ones((2, 3))}, jnp.ones((4, 2)))
      >>> print(taps["w"])
      [1. 1. 1. 1.]
    """
    if not callable(reduce):
        raise TypeError(f"reduce must be a function of a cotangent, got {reduce!r}")
    program = apply if isinstance(apply, Rewritten) else rewrite(apply)

    @jax.custom_vjp
    def attach(y, probe):
        del probe
        return y

    attach.defvjp(
        lambda y, probe: (y, probe),
        lambda probe, g: (g, reduce(g).astype(probe.dtype).reshape(probe.shape)),
    )

    def run(params, inputs, kwargs):
        traced = program.tracer.trace(params, inputs, kwargs)
        _check_scalar(traced)
        found = find(traced)
        probes = {
            site.name: _probe(reduce, site)
            for site in found.sites
            if (where or _has_weight)(site) and _has_cotangent(site)
        }
        values = trace.program_inputs(params, inputs, kwargs)

        def loss(probes):
            run = Run(program.rules, attach=attach, tap_marks=True, found=found)
            outs, _ = run.program(traced.jaxpr, values, probes)
            return outs[0]

        return jax.value_and_grad(loss)(probes)

    def tapped(params, *inputs, **kwargs):
        return trace.with_axes(run, axis_sizes)(params, inputs, kwargs)

    return tapped


def _has_weight(site: Site) -> bool:
    return site.kind != "mark"


def _has_cotangent(site: Site) -> bool:
    return (
        None not in site.trips
        and not site.custom
        and jnp.issubdtype(site.dtype, jnp.inexact)
    )


def _arrays(value: Any, site: Site) -> Any:
    """`value`, if all its leaves are arrays or numbers."""
    for leaf in jax.tree.leaves(value, is_leaf=lambda v: v is None):
        number = isinstance(leaf, bool | int | float | complex)
        if not number and not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
            kind = "None" if leaf is None else f"a {type(leaf).__name__}"
            raise TypeError(
                f"reduce returned {kind} at site {site.name!r}: it must return arrays "
                "(choose sites with where=)"
            )
    return value


def _probe(reduce, site) -> jax.Array:
    def checked(cotangent):
        value = reduce(cotangent)
        if not isinstance(value, jax.Array):
            raise TypeError(
                f"reduce returned a {type(value).__name__} at site {site.name!r}: it "
                "must return one array"
            )
        return value

    shape = jax.eval_shape(checked, jax.ShapeDtypeStruct(site.y_shape, site.dtype))
    if not jnp.issubdtype(shape.dtype, jnp.floating):
        raise ValueError(f"reduce must return floats, got {shape.dtype}")
    return jnp.zeros((*site.trips, *shape.shape), shape.dtype)


def _check_scalar(traced: trace.Traced) -> None:
    avals = traced.jaxpr.out_avals
    if len(avals) != 1 or math.prod(avals[0].shape) != 1 or avals[0].shape:
        raise ValueError(
            "apply must return one scalar loss, got "
            + ", ".join(a.str_short() for a in avals)
        )
