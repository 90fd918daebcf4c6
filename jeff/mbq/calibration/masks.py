"""Modality masks: which token of the calibration data belongs to which modality."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

__all__ = ["check_mapping", "check_masks", "is_traced"]


def is_traced(x: Any) -> bool:
    """Whether `x` has no value yet, so that only its shape can be checked.

    Args:
      x: Anything.

    Returns:
      True for a tracer of JAX.

    Examples:
      >>> is_traced(jnp.ones(2))
      False
      >>> jax.eval_shape(lambda x: print(is_traced(x)), jnp.ones(2))
      True
    """
    return isinstance(x, jax.core.Tracer)


def check_mapping(masks: Any) -> None:
    """Refuses masks that are not named by modality.

    Args:
      masks: What was given.

    Raises:
      TypeError: If it is no mapping, or a key is no string.

    Examples:
      >>> check_mapping(np.ones((2, 7), bool))
      Traceback (most recent call last):
        ...
      TypeError: masks must be a dict of masks by modality, got an array of shape (2, 7)
    """
    if not isinstance(masks, Mapping):
        given = type(masks).__name__
        if hasattr(masks, "shape"):
            given = f"an array of shape {np.shape(masks)}"
        raise TypeError(f"masks must be a dict of masks by modality, got {given}")
    for name in masks:
        if not isinstance(name, str):
            raise TypeError(f"masks must be named by modality, got the name {name!r}")


def check_masks(
    masks: Mapping[str, jax.Array], shape: tuple[int, ...] | None = None
) -> None:
    """Refuses masks that do not describe disjoint sets of tokens.

    Args:
      masks: bool ``[B, N]`` per modality.
      shape: ``(B, N)`` they must have; ``None``: that of the first.

    Raises:
      TypeError: If `masks` is no mapping from names, or a mask is not a boolean array.
      ValueError: If there is none, a shape is wrong, or two masks overlap (checked
        unless one is traced).

    Examples:
      >>> vision = np.array([[True, False]])
      >>> check_masks({"vision": vision, "language": vision})
      Traceback (most recent call last):
      ValueError: masks['language'] overlaps another at (sample, token) (0, 0)
    """
    check_mapping(masks)
    if not masks:
        raise ValueError("masks must name at least one modality, got none")
    for name, mask in masks.items():
        dtype = getattr(mask, "dtype", type(mask).__name__)
        if dtype != jnp.bool_:
            raise TypeError(f"masks[{name!r}] must be a boolean array, got {dtype}")
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
