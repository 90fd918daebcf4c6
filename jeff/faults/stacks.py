"""Stacked leaves: each entry of a stack of layers is injected as the array it is."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jeff import tree
from jeff.program import Site

__all__ = ["Stacked", "check_stacks", "per_entry", "stack_axes"]

Stacked = Mapping[str, int | tuple[int, ...]] | Iterable[str] | Iterable[Site]
"""Number of leading stack axes (or the axes) by leaf, names of leaves with one, or
sites."""


def stack_axes(stacked: Stacked | None) -> dict[str, tuple[int, ...]]:
    """The axes of leaves along which the entries of a stack lie.

    Args:
      stacked: Number of leading stack axes, or a tuple of stack axes, by leaf's name;
        names of leaves with one; or the sites of a program (`jeff.sites`), which know
        their leaves' stack axes.

    Returns:
      Axes by leaf's name; leaves without are left out.

    Raises:
      TypeError: If it is none of these.
      ValueError: If a number of axes is below 1, axes are not different numbers from
        0 on, or two sites use one leaf along different stack axes.

    Examples:
      >>> stack_axes({"experts": 2}), stack_axes(["layers"])
      ({'experts': (0, 1)}, {'layers': (0,)})
      >>> stack_axes({"columns": (1,)})
      {'columns': (1,)}
    """
    axes: dict[str, tuple[int, ...]] = {}
    if isinstance(stacked, Mapping):
        for name, count in dict[Any, Any](stacked).items():
            if isinstance(count, tuple):
                axes[name] = _checked_axes(name, count)
                continue
            if not isinstance(count, int) or count < 1:
                raise ValueError(f"stacked[{name!r}] must be at least 1, got {count!r}")
            axes[name] = tuple(range(count))
        return axes
    if stacked is None:
        return {}
    known = isinstance(stacked, Iterable) and not isinstance(stacked, str)
    items: list[Any] = [*stacked] if known else []
    if not known or not all(isinstance(item, str | Site) for item in items):
        raise TypeError(
            "stacked must be names of leaves, numbers of stack axes by name, or sites, "
            f"got {stacked!r}"
        )
    for item in items:
        if isinstance(item, str):
            axes[item] = (0,)
            continue
        for leaf, _, own in item.parts:
            if own != axes.setdefault(leaf, own):
                raise ValueError(
                    f"leaf {leaf!r} is stacked along {axes[leaf]} at one site and "
                    f"along {own} at {item.name!r}"
                )
    return {name: own for name, own in axes.items() if own}


def _checked_axes(name: str, axes: tuple[Any, ...]) -> tuple[int, ...]:
    whole = all(isinstance(a, int) and a >= 0 for a in axes)
    if not axes or not whole or len(set(axes)) < len(axes):
        raise ValueError(f"stacked[{name!r}] must hold different axes, got {axes!r}")
    return axes


def check_stacks(
    axes: Mapping[str, tuple[int, ...]], leaves: Mapping[str, Any]
) -> None:
    """Refuses stacks that are not among the leaves.

    Args:
      axes: From `stack_axes`.
      leaves: Leaves by name.

    Raises:
      ValueError: If a name is unknown, or the leaf has too few axes.

    Examples:
      >>> check_stacks({"layer": (0,)}, {"layers": 0})
      Traceback (most recent call last):
      ValueError: stacked names 'layer', which is no leaf of params; nearest: layers
    """
    for name, own in axes.items():
        if name not in leaves:
            raise ValueError(
                f"stacked names {name!r}, which is no leaf of params; "
                f"{tree.nearest(name, leaves)}"
            )
        if max(own) >= len(leaves[name].shape):
            raise ValueError(
                f"stacked leaf {name!r} has no axis {max(own)}: its shape is "
                f"{tuple(leaves[name].shape)}"
            )


def per_entry(
    inject: Callable[[Any, jax.Array], jax.Array], axes: tuple[int, ...]
) -> Callable[[Any, jax.Array], jax.Array]:
    """An injection that sees one entry of a stack at a time.

    Args:
      inject: ``inject(faults, x) -> x``.
      axes: Stack axes of `x`; none gives `inject` itself.

    Returns:
      The same for whole stacks. Scalars of the faults are those of every entry; their
      arrays must end in the axes of `x`, and are taken apart along with it.

    Raises:
      TypeError: At use, if an array of the faults does not.

    Examples:
      >>> largest = per_entry(lambda hit, x: jnp.where(hit, x.max(), x), (0,))
      >>> print(largest(jnp.array([[True, False]] * 2), jnp.array([[1, 2], [3, 4]])))
      [[2 2]
       [4 4]]
    """
    if not axes:
        return inject
    last, *rest = sorted(axes, reverse=True)

    def stacked(faults, x):
        def axis(array):
            if not array.ndim:
                return None
            if array.shape[array.ndim - x.ndim :] != x.shape or array.ndim < x.ndim:
                raise TypeError(
                    f"an array of the faults is {list(array.shape)}, which does not "
                    f"end in the shape {list(x.shape)} of a stack"
                )
            return array.ndim - x.ndim + last

        in_axes = jax.tree.map(axis, faults), last
        each = jax.vmap(per_entry(inject, tuple(rest)), in_axes, last)
        return each(faults, jnp.asarray(x))  # no custom derivative maps NumPy arrays

    return stacked
