"""Rules at a site: each one's operation runs the rest, and returns what a site must."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jeff import base

__all__ = ["chain", "check_sites", "taking_marks"]

_KINDS = (jnp.floating, jnp.integer, jnp.complexfloating, jnp.bool_)


def chain(
    rules: Sequence[base.Rule],
    site: Any,
    op: base.Operation,
    *,
    shape: tuple[int, ...],
    dtype: Any,
) -> base.Operation:
    """One operation that applies every rule, the first outermost.

    Args:
      rules: The rules.
      site: The site they act at.
      op: The site's own operation.
      shape: Shape of the site's output.
      dtype: Its dtype. What a rule returns in another floating or another integer
        dtype is converted.

    Returns:
      ``run(x, w) -> y``. It raises TypeError if a rule returns no array, or one of
      another kind of dtype, and ValueError if one of another shape; the message names
      the rule and the site.

    Examples:
      >>> from jeff.program.sites import sites
      >>> (site,) = sites(lambda p, x: x @ p["w"], {"w": jnp.ones((2, 1))}, jnp.ones(2))
      >>> def forgets(site, op, x, w):
      ...     op(x, w)
      >>> run = chain([forgets], site, jnp.dot, shape=(1,), dtype=jnp.float32)
      >>> run(jnp.ones(2), jnp.ones((2, 1)))
      Traceback (most recent call last):
      TypeError: rule forgets at site 'w' returned None: it must return the output
    """
    for rule in reversed(rules):
        op = functools.partial(_applied, rule, site, op, shape, jnp.dtype(dtype))
    return op


def check_sites(rules: Sequence[base.Rule], sites: Sequence[Any]) -> None:
    """Tells rules the sites of a program, before any of it runs.

    Args:
      rules: Rules; those without a method ``check(sites)`` take any program.
      sites: The program's sites.

    Raises:
      ValueError: As the rules do, if the program has no site that they are for.

    Examples:
      >>> class Head:  # a rule for the site "head", which there must be
      ...     def check(self, sites):
      ...         if "head" not in [site.name for site in sites]:
      ...             raise ValueError("there is no head")
      ...     def __call__(self, site, op, x, w):
      ...         return 2 * op(x, w) if site.name == "head" else op(x, w)
      >>> check_sites([Head()], [])
      Traceback (most recent call last):
      ValueError: there is no head
    """
    for rule in rules:
        check = getattr(rule, "check", None)
        if check is not None:
            check(sites)


def taking_marks(rules: Sequence[base.Rule]) -> list[base.Rule]:
    """The rules that act at marks: those with an attribute ``marks`` that is true.

    Args:
      rules: Rules, which are for weights that meet activations unless they say more.

    Returns:
      Those of them, in order.

    Examples:
      >>> def doubled(site, op, x, w):
      ...     return 2 * op(x, w)
      >>> taking_marks([doubled])
      []
      >>> doubled.marks = True
      >>> [rule.__name__ for rule in taking_marks([doubled])]
      ['doubled']
    """
    return [rule for rule in rules if getattr(_innermost(rule), "marks", False)]


def _innermost(rule: Any) -> Any:
    """What a partial rule calls; a partial function has no attributes of its own."""
    while isinstance(rule, functools.partial) and not hasattr(rule, "marks"):
        rule = rule.func
    return rule


def _applied(rule, site, op, shape, dtype, x, w) -> jax.Array:
    y = rule(site, op, x, w)
    who = f"rule {_name(rule)} at site {site.name!r}"
    if y is None:
        raise TypeError(f"{who} returned None: it must return the output")
    if not isinstance(y, jax.Array | bool | int | float | complex) and not (
        hasattr(y, "__array__") and hasattr(y, "dtype")
    ):
        raise TypeError(f"{who} returned a {type(y).__name__}, not an array")
    y = jnp.asarray(y)
    if y.shape != shape:
        raise ValueError(f"{who} returned shape {y.shape}, expected {shape}")
    if y.dtype == dtype:
        return y
    if not any(all(jnp.issubdtype(d, k) for d in (y.dtype, dtype)) for k in _KINDS):
        raise TypeError(f"{who} returned {y.dtype}, expected {dtype}")
    return y.astype(dtype)


def _name(rule: Any) -> str:
    while isinstance(rule, functools.partial):
        rule = rule.func
    return getattr(rule, "__name__", type(rule).__name__)
