"""Shapes of what a trial gets, for tracing and compiling without any data."""

from typing import Any

import jax
import jax.numpy as jnp

from jeff.sweep.planning.arguments import Sweep
from jeff.sweep.trial import Batch

__all__ = ["batch_shape", "point_shapes", "shape_of"]


def shape_of(array: Any, leading: tuple[int, ...], drop: int, place: Any) -> Any:
    """The shape of an array with other leading axes.

    Args:
      array: The array.
      leading: Axes that it is to have first.
      drop: How many of its own first axes these replace.
      place: The sharding, or ``None``.

    Returns:
      A `jax.ShapeDtypeStruct`.
    """
    full = (*leading, *array.shape[drop:])
    return jax.ShapeDtypeStruct(full, array.dtype, sharding=place)


def batch_shape(sweep: Sweep, leading: tuple[int, ...], place: Any = None) -> Any:
    """The shapes of a batch, or of several.

    Args:
      sweep: The sweep.
      leading: ``(batch,)`` or ``(batches, batch)``.
      place: The sharding, or ``None``.

    Returns:
      A `Batch` of shapes.
    """
    parts: Any = (
        jax.tree.map(lambda a: shape_of(a, leading, 1, place), sweep.data),
        jax.ShapeDtypeStruct(leading, jnp.int32, sharding=place),
        jax.ShapeDtypeStruct(leading, jnp.bool_, sharding=place),
    )
    return Batch(*parts)


def point_shapes(sweep: Sweep, place: Any = None) -> tuple[Any, Any, Any]:
    """The shapes of the key and of one rate and design.

    Args:
      sweep: The sweep.
      place: The sharding, or ``None``.

    Returns:
      The three shapes; that of the design is a pytree.
    """
    return (
        shape_of(sweep.key, (), 0, place),
        jax.ShapeDtypeStruct((), sweep.rates.dtype, sharding=place),
        jax.tree.map(lambda a: shape_of(a, (), 1, place), sweep.designs),
    )
