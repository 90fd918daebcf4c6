"""Analog variation of stored weights, and generic noise on features.

| model | formula |
| --- | --- |
| `lognormal` | ``w * exp(sigma z)`` (device conductance) |
| `reciprocal_normal` | ``w / (1 + sigma z)`` (device resistance is normal) |
| `gaussian` | ``y + sigma z`` |
| `salt_and_pepper` | 0 with probability rate / 2, ``max|y|`` with rate / 2 |

z is standard normal, independent for every element. The first three are differentiated
as they stand, and compute in float32 or, if wider, in the array's own dtype; at
``sigma = 0`` they are the identity, bit for bit. ``max|y|`` is that of finite elements.

References:
  FTT-NAS, arXiv 2003.10375, appendix on other fault models.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jeff import base
from jeff.faults import gradients, masks, rates
from jeff.faults.magnitude import largest_magnitude
from jeff.faults.model import fault_model
from pallas_kernels.threefry import unrolled

__all__ = [
    "Deviation",
    "SaltAndPepper",
    "gaussian",
    "lognormal",
    "reciprocal_normal",
    "salt_and_pepper",
]


class Deviation(NamedTuple):
    """Sampled noise.

    Attributes:
      amount: float32 of the array's shape: the factor, or for `gaussian` the addend.
    """

    amount: jax.Array


class SaltAndPepper(NamedTuple):
    """Sampled noise.

    Attributes:
      zero: bool of the array's shape: elements that become 0.
      largest: bool of the array's shape, disjoint: elements that become ``max|x|``.
      overflow: bool ``[]``: the sampler's buffer was too short, hits are missing.
    """

    zero: jax.Array
    largest: jax.Array
    overflow: jax.Array


def lognormal(sigma: Any) -> base.FaultModel:
    """Multiplies every element by ``exp(sigma z)``.

    Args:
      sigma: Standard deviation of the logarithm, at least 0; may be traced.

    Returns:
      A `FaultModel` whose ``sample(key, like)`` gives `Deviation`.

    Raises:
      TypeError: If `sigma` is no real number; at use, if the array is not floating.
      ValueError: If `sigma` is an array, negative, or not finite.

    Examples:
      >>> model, w = lognormal(0.1), jnp.ones(10_000)
      >>> faulty = model.inject(model.sample(jax.random.key(0), w), w)
      >>> print(round(float(jnp.log(faulty).std()), 2))
      0.1
    """
    return _noise(sigma, jnp.exp, lambda x, amount: x * amount, neutral=1.0)


def reciprocal_normal(sigma: Any) -> base.FaultModel:
    """Divides every element by ``1 + sigma z``.

    The moments of the factor do not exist: draws of ``1 + sigma z`` near 0 are rare for
    small `sigma` (4 sigma away at 0.25) but may be of any size and either sign.

    Args:
      sigma: Standard deviation of the divisor, at least 0; may be traced.

    Returns:
      A `FaultModel` whose ``sample(key, like)`` gives `Deviation`.

    Raises:
      TypeError: If `sigma` is no real number; at use, if the array is not floating.
      ValueError: If `sigma` is an array, negative, or not finite.

    Examples:
      >>> model, w = reciprocal_normal(0.1), jnp.ones(10_000)
      >>> faulty = model.inject(model.sample(jax.random.key(0), w), w)
      >>> print(round(float((1 / faulty).std()), 2))
      0.1
    """
    return _noise(
        sigma, lambda z: 1.0 / (1.0 + z), lambda x, amount: x * amount, neutral=1.0
    )


def gaussian(sigma: Any) -> base.FaultModel:
    """Adds ``sigma z`` to every element.

    Args:
      sigma: Standard deviation in the array's unit, at least 0; may be traced.

    Returns:
      A `FaultModel` whose ``sample(key, like)`` gives `Deviation`.

    Raises:
      TypeError: If `sigma` is no real number; at use, if the array is not floating.
      ValueError: If `sigma` is an array, negative, or not finite.

    Examples:
      >>> model, y = gaussian(0.1), jnp.ones(10_000)
      >>> faulty = model.inject(model.sample(jax.random.key(0), y), y)
      >>> print(round(float(faulty.std()), 2))
      0.1
    """
    return _noise(sigma, lambda z: z, lambda x, amount: x + amount, neutral=0.0)


def salt_and_pepper(
    rate: Any,
    *,
    gradient: str = "masked",
    method: str | None = None,
    max_rate: float | None = None,
) -> base.FaultModel:
    """Sets elements to 0 or to the largest magnitude, each with ``rate / 2``.

    Args:
      rate: Probability in [0, 1] that an element is hit; may be traced.
      gradient: One of `gradients.GRADIENTS`.
      method: Sampler, see `masks.mask`.
      max_rate: Largest rate of a sweep, see `masks.mask`.

    Returns:
      A `FaultModel` whose ``sample(key, like)`` gives `SaltAndPepper`.

    Raises:
      TypeError: If `rate` is no real number; at use, if the array is not floating.
      ValueError: If `rate` is outside [0, 1] or `gradient` is another word.

    Examples:
      >>> model, y = salt_and_pepper(1.0), jnp.array([1.0, 2.0, -3.0])
      >>> print(model.inject(model.sample(jax.random.key(0), y), y))
      [3. 3. 0.]
    """
    rate = rates.checked_rate("rate", rate)
    rates.check_choice("gradient", gradient, gradients.GRADIENTS)

    def sample_each(keys, likes):
        for like in likes:
            rates.check_floating("like", like)
        shapes = [like.shape for like in likes]
        drawn = masks.marked_each(
            keys, rate, shapes, _coin, method=method, max_rate=max_rate
        )
        return [
            SaltAndPepper(mask.hit & (top == 0), top == 1, mask.overflow)
            for mask, top in drawn
        ]

    def inject(faults, x):
        rates.check_floating("x", x)
        largest = largest_magnitude(x)
        value = jnp.where(faults.zero, jnp.zeros_like(x), x)
        value = jnp.where(faults.largest, largest, value)
        passes = gradients.passing(faults.zero | faults.largest, gradient)
        return gradients.straight_through(value, x, passes)

    return fault_model(sample_each, inject)


def _coin(key, shape):
    return jax.random.bits(unrolled(key), shape, jnp.uint8) >> jnp.uint8(7)


def _noise(sigma, amount, apply, *, neutral):
    """A model that applies ``amount(sigma z)``; the `neutral` one changes nothing."""
    if np.shape(sigma):
        raise ValueError(f"sigma must be one number, got shape {np.shape(sigma)}")
    rates.check_scale("sigma", sigma)

    def sample(key, like):
        rates.check_floating("like", like)
        z = jax.random.normal(unrolled(key), like.shape, jnp.float32)
        return Deviation(amount(jnp.asarray(sigma, jnp.float32) * z))

    def inject(faults, x):
        rates.check_floating("x", x)
        wide = x.dtype if jnp.finfo(x.dtype).bits > 32 else jnp.float32
        noisy = apply(x.astype(wide), faults.amount.astype(wide)).astype(x.dtype)
        # Denormals may be flushed, and -0.0 + 0.0 is 0.0; sigma keeps its derivative.
        value = jnp.where(faults.amount == neutral, x, noisy)
        return gradients.straight_through(value, noisy, jnp.ones(x.shape, bool))

    return base.FaultModel(sample, inject)
