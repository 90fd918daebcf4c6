"""What one trial of a sweep is: a draw, and what is counted of it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

__all__ = ["Batch", "Trial"]


class Batch(NamedTuple):
    """A batch of examples, as `Trial.evaluate` gets it.

    All batches of a sweep are of one size; the last one is filled up with copies of
    the last example, which must not be counted.

    Attributes:
      data: A pytree like the sweep's `data`; each array ``[batch, ...]``.
      index: int32 ``[batch]``, the number of each example in the sweep's `data`; one
        that fills up has a number of its own, past the last.
      valid: bool ``[batch]``, false for examples that only fill up.

    Examples:
      >>> import jax.numpy as jnp
      >>> batch = Batch(jnp.ones((2, 3)), jnp.arange(2), jnp.array([True, False]))
      >>> print(jnp.sum(batch.valid))  # how many examples count
      1
    """

    data: Any
    index: jax.Array
    valid: jax.Array


class Trial(NamedTuple):
    """What one trial does: two pure functions that the sweep traces and compiles.

    Attributes:
      draw: ``draw(key, rate, design) -> faulty``, once per trial. `key` is the trial's
        own, the same for every rate and design; `rate` a scalar of the default float
        dtype, `design` an entry of the sweep's `designs` (``None`` without designs);
        both are traced. Returns any pytree, such as faulty params.
      evaluate: ``evaluate(faulty, batch) -> stats``, once per `Batch`. Returns a pytree
        of integer or floating arrays, whose shapes do not depend on the batch's size;
        they are summed over the batches, in order.
      check: ``check(rates, data, design)``, or ``None``: called once before anything is
        traced, with the known rates and with shapes (`jax.ShapeDtypeStruct`) of the
        sweep's `data` and of one design (``None`` without designs); raises what is
        wrong with them.

    Examples:
      The error that a rounded weight makes, for weights that are off by `rate`:

      >>> import jax, jax.numpy as jnp
      >>> def draw(key, rate, design):
      ...     return 1.0 + rate * jax.random.normal(key)
      >>> def evaluate(weight, batch):
      ...     error = jnp.abs(weight * batch.data - batch.data)
      ...     return {"error": jnp.sum(jnp.where(batch.valid, error, 0.0))}
      >>> trial = Trial(draw, evaluate)
      >>> batch = Batch(jnp.ones(4), jnp.arange(4), jnp.ones(4, bool))
      >>> print(trial.evaluate(trial.draw(jax.random.key(0), 0.0, None), batch))
      {'error': Array(0., dtype=float32)}
    """

    draw: Callable[[jax.Array, jax.Array, Any], Any]
    evaluate: Callable[[Any, Batch], Any]
    check: Callable[[Sequence[float], Any, Any], None] | None = None
