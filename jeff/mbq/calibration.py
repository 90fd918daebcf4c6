"""Calibration data: batches of inputs, with the modality of every token."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jeff.mbq.masks import check_masks

__all__ = ["Batch", "check_batches"]


class Batch(NamedTuple):
    """One micro-batch of calibration data.

    Attributes:
      inputs: What the program takes after `params`: ``apply(params, *inputs)``.
      masks: Per modality a bool ``[B, N]``: its tokens. Padding and prompt are in
        none. Only methods that tell modalities apart need it.
      targets: What the loss needs beside the outputs; any pytree.
    """

    inputs: tuple[Any, ...]
    masks: Mapping[str, jax.Array] = {}
    targets: Any = None


def check_batches(batches: Sequence[Batch]) -> tuple[Batch, ...]:
    """Checks calibration data before any heavy work.

    Args:
      batches: The batches; all inputs of equal shapes.

    Returns:
      The batches as a tuple.

    Raises:
      TypeError: If an entry is not a `Batch`, or a mask is not boolean.
      ValueError: If there is none, a batch holds a NaN or an infinity (the message
        says which batch), shapes differ between batches, or masks are of unequal
        shapes, overlap or name other modalities than the first batch's.

    Examples:
      >>> import jax.numpy as jnp
      >>> bad = Batch(inputs=(jnp.array([1.0, jnp.nan]),))
      >>> check_batches([bad])
      Traceback (most recent call last):
        ...
      ValueError: batches[0].inputs holds NaN or infinity
    """
    batches = tuple(batches)
    if not batches:
        raise ValueError("batches is empty: calibration needs at least one batch")
    for i, batch in enumerate(batches):
        if not isinstance(batch, Batch):
            raise TypeError(f"batches[{i}] must be a Batch, got {type(batch).__name__}")
        for field in ("inputs", "targets"):
            for leaf in jax.tree.leaves(getattr(batch, field)):
                if not _finite(leaf):
                    raise ValueError(f"batches[{i}].{field} holds NaN or infinity")
        if _shapes(batch.inputs) != _shapes(batches[0].inputs):
            raise ValueError(
                f"batches[{i}].inputs has shapes {_shapes(batch.inputs)}, "
                f"batches[0] has {_shapes(batches[0].inputs)}"
            )
        if sorted(batch.masks) != sorted(batches[0].masks):
            raise ValueError(
                f"batches[{i}].masks names {sorted(batch.masks)}, "
                f"batches[0] names {sorted(batches[0].masks)}"
            )
        if batch.masks:
            try:
                check_masks(batch.masks)
            except ValueError as error:
                raise ValueError(f"batches[{i}].masks: {error}") from None
    return batches


def _finite(leaf: Any) -> bool:
    array = np.asarray(leaf) if not jax.dtypes.issubdtype(
        getattr(leaf, "dtype", np.float32), jax.dtypes.extended) else np.zeros(())
    if not jax.numpy.issubdtype(array.dtype, jax.numpy.inexact):
        return True
    return bool(np.isfinite(array.astype(np.float32)).all())


def _shapes(tree: Any) -> list[tuple[int, ...]]:
    return [np.shape(leaf) for leaf in jax.tree.leaves(tree)]
