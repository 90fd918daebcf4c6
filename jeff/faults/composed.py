"""Several fault models at once."""

from typing import Any, NamedTuple

import jax

from jeff import base
from jeff.faults.model import fault_model, overflow_of, sample_all
from jeff.prng import named_key

__all__ = ["Composed", "check_models", "compose"]


class Composed(NamedTuple):
    """Sampled faults of several models.

    Attributes:
      parts: What each model's `sample` gave.
      overflow: bool ``[]``: whether one of them lacks faults.
    """

    parts: tuple[Any, ...]
    overflow: jax.Array


def compose(*models: base.FaultModel) -> base.FaultModel:
    """Fault models that act one after another, in the order given.

    The first draws from the key itself, so that it draws what it draws alone; model i
    (from 1) draws from ``named_key(key, "model", i)``.

    Args:
      *models: At least one; each must take what the one before it gives.

    Returns:
      A `FaultModel` whose ``sample(key, like)`` gives `Composed`; of one model, that
      model itself.

    Raises:
      TypeError: If something is no `FaultModel`.
      ValueError: If there is none.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jeff.faults import bit_flip
      >>> like = jnp.zeros(2, jnp.uint8)
      >>> both = compose(bit_flip(1.0, bits=1), bit_flip(1.0, bits=3))
      >>> print(both.inject(both.sample(jax.random.key(0), like), like))
      [6 6]
    """
    check_models(models)
    if len(models) == 1:
        return models[0]

    def sample_each(keys, likes):
        parts = []
        for i, model in enumerate(models):
            own = [named_key(k, "model", i) for k in keys] if i else keys
            parts.append(sample_all(model, own, likes))
        return [Composed(p, overflow_of(p)) for p in zip(*parts, strict=True)]

    def inject(faults, x):
        for model, part in zip(models, faults.parts, strict=True):
            x = model.inject(part, x)
        return x

    return fault_model(sample_each, inject)


def check_models(models: tuple[Any, ...]) -> None:
    """Refuses what are no fault models.

    Args:
      models: What was given.

    Raises:
      TypeError: If something is no `FaultModel`.
      ValueError: If there is none.

    Examples:
      >>> check_models(())
      Traceback (most recent call last):
      ValueError: no fault model was given
    """
    if not models:
        raise ValueError("no fault model was given")
    for model in models:
        if not isinstance(model, base.FaultModel):
            raise TypeError(f"a fault model must be a FaultModel, got {model!r}")
