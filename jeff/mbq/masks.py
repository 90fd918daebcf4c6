"""Modality masks: which token of the calibration data belongs to which modality."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

__all__ = ["check_masks", "is_traced"]


def is_traced(x: Any) -> bool:
    """Whether `x` has no value yet, so that only its shape can be checked."""
    return isinstance(x, jax.core.Tracer)


def check_masks(
    masks: Mapping[str, jax.Array], shape: tuple[int, ...] | None = None
) -> None:
    """Refuses masks that do not describe disjoint sets of tokens.

    Args:
      masks: bool ``[B, N]`` per modality.
      shape: ``(B, N)`` they must have; ``None``: that of the first.

    Raises:
      TypeError: If a mask is not boolean.
      ValueError: If there is none, a shape is wrong, or two masks overlap (checked
        unless one is traced).

    Examples:
      >>> vision = np.array([[True, False]])
      >>> check_masks({"vision": vision, "language": vision})
      Traceback (most recent call last):
      ValueError: masks['language'] overlaps another at (sample, token) (0, 0)
    """
    if not masks:
        raise ValueError("masks must name at least one modality, got none")
    for name, mask in masks.items():
        if jnp.result_type(mask) != jnp.bool_:
            raise TypeError(
                f"masks[{name!r}] must be boolean, got {jnp.result_type(mask)}"
            )
        if jnp.ndim(mask) != 2:
            raise ValueError(
                f"masks[{name!r}] must have shape [batch, tokens], "
                f"got {jnp.shape(mask)}"
            )
        shape = jnp.shape(mask) if shape is None else tuple(shape)
        if jnp.shape(mask) != shape:
            raise ValueError(
                f"masks[{name!r}] must have shape [batch, tokens] = {shape}, "
                f"got {jnp.shape(mask)}"
            )
    if any(is_traced(mask) for mask in masks.values()):
        return
    seen = np.array(False)
    for name, mask in masks.items():
        both = np.argwhere(seen & np.asarray(mask))
        if len(both):
            raise ValueError(
                f"masks[{name!r}] overlaps another at (sample, token) "
                f"{tuple(both[0].tolist())}"
            )
        seen = seen | np.asarray(mask)
