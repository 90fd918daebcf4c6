"""Gradients through faults: which elements let them pass.

A fault model gives ``x'`` from ``x``. In training its derivative is not that of the
formula (which rounds, or is constant) but the mask of elements that let it pass:

- ``"masked"``: 0 where a fault has hit, 1 elsewhere (masked back-propagation);
- ``"straight_through"``: 1 everywhere (but 0 where a value has saturated, if the model
  has a range).

References:
  FTT-NAS, arXiv 2003.10375, training with weight faults.
"""

import jax
import jax.numpy as jnp

__all__ = ["GRADIENTS", "passing", "straight_through"]

GRADIENTS = ("masked", "straight_through")
"""What a fault model's argument `gradient` may be."""


def passing(hit: jax.Array, gradient: str) -> jax.Array:
    """Which elements let the gradient pass.

    Args:
      hit: bool: elements on which a fault acts.
      gradient: One of `GRADIENTS`.

    Returns:
      bool of the same shape: `straight_through`'s argument `passes`.

    Examples:
      >>> hit = jnp.array([True, False])
      >>> print(passing(hit, "masked"), passing(hit, "straight_through"))
      [False  True] [ True  True]
    """
    return ~hit if gradient == "masked" else jnp.ones_like(hit)


@jax.custom_jvp
def straight_through(value: jax.Array, x: jax.Array, passes: jax.Array) -> jax.Array:
    """`value`, with the derivative of `x` where `passes`, bit for bit.

    Args:
      value: What the program goes on with; any shape.
      x: What it was made from, of the same shape and floating dtype.
      passes: bool, of the same shape: the derivative is 1 there, 0 elsewhere.

    Returns:
      `value`, unchanged.

    Examples:
      >>> f = lambda x: straight_through(jnp.round(x), x, x > 0).sum()
      >>> print(jax.grad(f)(jnp.array([0.4, -0.4])))
      [1. 0.]
    """
    del x, passes
    return value


@straight_through.defjvp
def _straight_through_jvp(primals, tangents):
    value, _, passes = primals
    _, dx, _ = tangents
    return value, jnp.where(passes, dx, jnp.zeros_like(dx))
