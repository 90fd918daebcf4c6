"""The examples a fault campaign runs on, and how they are taken in batches."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from jeff.sweep.checks import positive

__all__ = ["Examples", "in_batches", "one_example", "spread"]


class Examples(NamedTuple):
    """The data of a fault campaign, as `Batch.data` carries it.

    Attributes:
      inputs: What the program gets besides params: an array ``[examples, ...]``, or a
        tuple of them for ``apply(params, *inputs)``.
      labels: int32 ``[examples]``.
      golden: floating ``[examples, classes]``, outputs without faults.

    Examples:
      >>> x = np.eye(2, dtype=np.float32)
      >>> data = Examples(x, np.array([0, 1], np.int32), golden=2 * x)
      >>> print(jax.tree.map(np.shape, data))
      Examples(inputs=(2, 2), labels=(2,), golden=(2, 2))
    """

    inputs: Any
    labels: Any
    golden: Any


def in_batches(data: Any, batch: int) -> Iterator[tuple[Any, int]]:
    """Data in batches of one size.

    Args:
      data: A pytree of arrays ``[examples, ...]``.
      batch: Examples of a batch, at least 1.

    Yields:
      ``(part, count)``: the pytree with arrays ``[batch, ...]``, the last one filled up
      with copies of the last example, and how many examples count.

    Raises:
      ValueError: If the arrays have no common number of examples, or none, or the
        batch is below 1.

    Examples:
      >>> [(part.tolist(), count) for part, count in in_batches(np.arange(3), 2)]
      [([0, 1], 2), ([2, 2], 1)]
    """
    batch = positive("batch", batch)
    shapes = [np.shape(a) for a in jax.tree.leaves(data)]
    sizes = {s[0] if s else None for s in shapes}
    if len(sizes) != 1 or not sizes.isdisjoint({None, 0}):
        raise ValueError(
            f"inputs must have one leading axis of examples in common: {shapes}"
        )
    (total,) = sizes
    assert total is not None
    for first in range(0, total, batch):
        rows = np.minimum(np.arange(first, first + batch), total - 1)
        part = jax.tree.map(lambda a, rows=rows: np.asarray(a)[rows], data)
        yield part, min(batch, total - first)


def spread(inputs: Any) -> tuple[Any, ...]:
    """The inputs as the arguments they are.

    Args:
      inputs: One input, or a tuple of several.

    Returns:
      A tuple.

    Examples:
      >>> spread(1), spread((1, 2))
      ((1,), (1, 2))
    """
    return inputs if type(inputs) is tuple else (inputs,)


def one_example(inputs: Any) -> tuple[Any, ...]:
    """The arguments of a program for one example, as shapes.

    Args:
      inputs: An array ``[examples, ...]``, or a tuple of them; shapes suffice.

    Returns:
      A tuple with a `jax.ShapeDtypeStruct` ``[1, ...]`` for every array.

    Examples:
      >>> one_example(np.zeros((5, 3), np.float32))
      (ShapeDtypeStruct(shape=(1, 3), dtype=float32),)
    """
    return jax.tree.map(
        lambda a: jax.ShapeDtypeStruct((1, *a.shape[1:]), a.dtype), spread(inputs)
    )
