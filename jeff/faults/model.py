"""Fault models that draw for several arrays at once, and the codes they may act on."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jeff import base

__all__ = ["Codes", "fault_model", "overflow_of", "sample_all"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Codes:
    """What `sample` is told of the codes of a `StoredWeight`: its argument `like`.

    Attributes:
      shape: Shape of the codes.
      dtype: Their integer dtype.
      bits: How many low bits of a code are really stored.

    Examples:
      >>> from jeff.faults import bit_flip
      >>> like = Codes(shape=(2,), dtype=jnp.dtype("uint8"), bits=3)
      >>> print(bit_flip(1.0).sample(jax.random.key(0), like).word)
      [7 7]
    """

    shape: tuple[int, ...]
    dtype: Any
    bits: int


def fault_model(
    sample_each: Callable[[Sequence[jax.Array], Sequence[Any]], Sequence[Any]],
    inject: Callable[[Any, jax.Array], jax.Array],
) -> base.FaultModel:
    """A fault model from the drawing for several arrays.

    Args:
      sample_each: ``sample_each(keys, likes) -> faults of each``; what it draws for an
        array must depend on that array's key and `like` only.
      inject: ``inject(faults, x) -> x``.

    Returns:
      The model; its `sample` is `sample_each` of one array.

    Examples:
      >>> def sample_each(keys, likes):
      ...     return [jax.random.bernoulli(keys[0], 0.5, likes[0].shape)]
      >>> zeroed = fault_model(sample_each, lambda hit, x: jnp.where(hit, 0.0, x))
      >>> x = jnp.ones(3)
      >>> print(zeroed.inject(zeroed.sample(jax.random.key(1), x), x))
      [0. 1. 0.]
    """

    def sample(key, like):
        return sample_each([key], [like])[0]

    return base.FaultModel(sample, inject, sample_each)


def sample_all(
    model: base.FaultModel, keys: Sequence[jax.Array], likes: Sequence[Any]
) -> Sequence[Any]:
    """The faults of several arrays: by `sample_each`, or one by one.

    Args:
      model: A fault model.
      keys: A key per array.
      likes: An array, or its shape and dtype, per array.

    Returns:
      Faults per array.

    Examples:
      >>> model = base.FaultModel(lambda key, like: like.shape, lambda faults, x: x)
      >>> sample_all(model, [None, None], [jnp.zeros(2), jnp.zeros((1, 3))])
      [(2,), (1, 3)]
    """
    if model.sample_each is not None:
        return model.sample_each(keys, likes)
    return [model.sample(k, like) for k, like in zip(keys, likes, strict=True)]


def overflow_of(faults: Any) -> jax.Array:
    """Whether a record of faults, or one of several, lacks hits.

    Args:
      faults: What a `sample` gave, or a sequence of such records.

    Returns:
      bool ``[]``: its `overflow`; false for records that cannot overflow.

    Examples:
      >>> print(overflow_of(jnp.zeros(3)))
      False
    """
    own = getattr(faults, "overflow", None)
    if own is not None:
        return own
    over = jnp.zeros((), bool)
    if isinstance(faults, tuple | list):
        for part in faults:
            over = over | overflow_of(part)
    return over
