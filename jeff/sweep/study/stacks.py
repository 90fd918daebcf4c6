"""Leaves that hold a stack of layers, found in the program that takes them apart."""

from collections.abc import Callable, Iterator
from typing import Any

from jeff.program import trace
from jeff.program.graph import Frame, Value
from jeff.program.sites import find
from jeff.sweep.campaigns.batches import one_example

__all__ = ["stacks"]


def stacks(
    apply: Callable[..., Any], params: Any, inputs: Any
) -> dict[str, tuple[int, ...]]:
    """The axes of leaves along which a program takes one layer, or expert, at a time.

    Those of sites (`jeff.sites`), and of the leaves that loops step through and that
    belong to no site, such as biases and norms.

    Args:
      apply: ``apply(params, *inputs)``.
      params: Params, dense or stored.
      inputs: An array ``[examples, ...]``, or a tuple of them; shapes suffice.

    Returns:
      Axes by the leaf's name; leaves without are left out.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> def scanned(p, x):
      ...     def layer(h, p):
      ...         return jnp.tanh(h @ p["w"] + p["b"]), None
      ...     return jax.lax.scan(layer, x, p["layers"])[0] @ p["head"]
      >>> layers = {"w": jnp.ones((3, 4, 4)), "b": jnp.ones((3, 4))}
      >>> params = {"layers": layers, "head": jnp.ones((4, 2))}
      >>> stacks(scanned, params, jnp.ones((5, 4)))
      {'layers.b': (0,), 'layers.w': (0,)}
    """
    found = find(trace.tracer_of(apply).trace(params, one_example(inputs), {}))
    axes: dict[str, tuple[int, ...]] = {}

    def note(leaf: str, own: tuple[int, ...]) -> None:
        if len(own) > len(axes.get(leaf, ())):  # of nested loops the innermost
            axes[leaf] = own

    for site in found.sites:
        for leaf, _, own in site.parts:
            note(leaf, own)
    at_sites = frozenset(axes)
    for value in _values(found.program.frame):
        origin = value.origin
        if origin is not None and origin.loops and len(origin.leaves) == 1:
            (leaf,) = origin.leaves
            if leaf not in at_sites:
                note(leaf, origin.stack)
    return dict(sorted(axes.items()))


def _values(frame: Frame) -> Iterator[Value]:
    """All values of a frame and of those inside it."""
    yield from frame.inputs
    for step in frame.steps:
        yield from step.outputs
        for child in step.children:
            yield from _values(child)
