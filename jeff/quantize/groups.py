"""Groups of weights that share a scale: their geometry.

A weight has contraction axes, which a product sums over; everything else is an output
or a stack axis. Groups run along the contraction axes as if flattened in row-major
order, so a group covers whole axes from the last one on, then a part of one axis::

    attention output [heads 8, head size 64, out 512], contracted over the first two
    group_size 16:  tile (1, 16, 1)    scales [8, 4, 512]
    group_size 128: tile (2, 64, 1)    scales [4, 1, 512]
    per channel:    tile (8, 64, 1)    scales [1, 1, 512]

An array of scales has the rank and axis order of the weight; the size of a group along
an axis is the quotient of the two sizes and is stored nowhere.
"""

import math
import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jeff.quantize.config import QuantConfig, check_config

__all__ = ["extremes", "group_shape", "normalize_axes", "split_run", "spread"]


def group_shape(
    shape: Sequence[int],
    config: QuantConfig,
    *,
    contract_axes: Sequence[int] = (-2,),
    stack_axes: Sequence[int] = (),
) -> tuple[int, ...]:
    """Shape of the scales of a weight of this shape.

    Args:
      shape: Shape of the dense weight.
      config: The quantizer.
      contract_axes: Axes that a product sums over.
      stack_axes: Axes of which each entry is a weight of its own.

    Returns:
      One size per axis of `shape`, each a divisor of it.

    Raises:
      TypeError: If `config` is no `QuantConfig`, or axes are no sequence of integers.
      ValueError: If the weight is empty, an axis is out of range or given twice, or
        the group size does not divide the contraction axes.

    Examples:
      >>> group_shape((8, 64, 512), QuantConfig(bits=3, group_size=128),
      ...             contract_axes=(0, 1))
      (4, 1, 512)
    """
    check_config(config)
    ndim = len(shape)
    contract = normalize_axes(contract_axes, ndim, "contract_axes")
    stack = normalize_axes(stack_axes, ndim, "stack_axes")
    if not contract:
        raise ValueError("contract_axes must name at least one axis")
    if 0 in shape:
        raise ValueError(f"a weight of shape {tuple(shape)} has no entries")
    if set(contract) & set(stack):
        raise ValueError(
            f"contract_axes {tuple(contract_axes)} and stack_axes "
            f"{tuple(stack_axes)} share an axis"
        )
    if config.per_tensor:
        return tuple(n if a - ndim in stack else 1 for a, n in enumerate(shape))
    sizes = tuple(shape[a] for a in contract)
    size = math.prod(sizes) if config.group_size is None else config.group_size
    run = split_run(sizes, size)
    if run is None:
        raise ValueError(
            f"group_size {size} does not divide the contraction axes of sizes "
            f"{sizes} of a weight of shape {tuple(shape)}"
        )
    counts = list(shape)
    for axis, n in zip(contract, run, strict=True):
        counts[axis] //= n
    return tuple(counts)


def normalize_axes(axes: Sequence[int], ndim: int, name: str) -> tuple[int, ...]:
    """Axes counted from the end.

    Args:
      axes: Axes, counted from either side.
      ndim: Number of axes of the array.
      name: What to call `axes` in an error.

    Returns:
      Axes in ``[-ndim, -1]``, in the order given.

    Raises:
      TypeError: If `axes` is no sequence of integers; one axis is ``(axis,)``.
      ValueError: If an axis is out of range or given twice.

    Examples:
      >>> normalize_axes((0, -1), 3, "contract_axes")
      (-3, -1)
    """
    try:
        axes = tuple(operator.index(axis) for axis in axes)
    except TypeError:
        raise TypeError(f"{name} must be a tuple of integers, got {axes!r}") from None
    for axis in axes:
        if not -ndim <= axis < ndim:
            raise ValueError(
                f"{name} {axes} is out of range for a weight of {ndim} axes"
            )
    negative = tuple(axis if axis < 0 else axis - ndim for axis in axes)
    if len(set(negative)) != len(negative):
        raise ValueError(f"{name} {axes} names an axis twice")
    return negative


def spread(groups: jax.Array, shape: Sequence[int]) -> jax.Array:
    """Values per group as float32 that broadcast against the dense weight.

    Args:
      groups: One value per group; of the rank of `shape`, each size dividing it.
      shape: Shape of the dense weight.

    Returns:
      float32; every axis has its size in `shape`, or 1 if it is one group.

    Examples:
      >>> print(spread(jnp.array([[1.0], [2.0]]), (4, 3))[:, 0])
      [1. 1. 2. 2.]
    """
    whole, split, wide = [], [], []
    for n, g in zip(shape, groups.shape, strict=True):
        grouped = 1 < g < n
        whole += [g, 1] if grouped else [g]
        split += [g, n // g] if grouped else [g]
        wide.append(n if grouped else g)
    groups = groups.astype(jnp.float32).reshape(whole)
    return jnp.broadcast_to(groups, split).reshape(wide)


def split_run(sizes: Sequence[int], length: int) -> tuple[int, ...] | None:
    """Sizes per axis of a row-major run that fills a block, or ``None``.

    Args:
      sizes: Sizes of the flattened axes, outermost first.
      length: Entries in the run.

    Returns:
      A divisor of each size, with product `length`: whole axes from the last one on,
      then a part of one axis, then 1.

    Examples:
      >>> split_run((8, 64), 128), split_run((8, 64), 16), split_run((8, 64), 48)
      ((2, 64), (1, 16), None)
    """
    run = []
    for n in reversed(sizes):
        part = min(length, n)
        if n % part or length % part:
            return None
        run.append(part)
        length //= part
    return tuple(reversed(run)) if length == 1 else None


def extremes(w: jax.Array, groups: Sequence[int]) -> tuple[jax.Array, jax.Array]:
    """Smallest and largest weight of every group.

    Args:
      w: Weight of any shape.
      groups: Number of groups along every axis, as `group_shape` gives it.

    Returns:
      Two arrays of shape `groups`, float32.

    Examples:
      >>> low, high = extremes(jnp.arange(6.0).reshape(6, 1), (2, 1))
      >>> print(low[:, 0], high[:, 0])
      [0. 3.] [2. 5.]
    """
    split, inside = [], []
    for n, g in zip(w.shape, groups, strict=True):
        if g < n:  # an axis of one entry per group stays as it is
            inside.append(len(split) + 1)
            split += [g, n // g]
        else:
            split.append(n)
    w = w.astype(jnp.float32).reshape(split)
    return w.min(inside), w.max(inside)
