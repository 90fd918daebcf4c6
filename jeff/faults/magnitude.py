"""The largest magnitude of an array, by which fault models scale themselves.

It is taken over finite elements, so that one infinity or NaN, such as an earlier fault
leaves, does not become the range of everything else.
"""

import jax
import jax.numpy as jnp

__all__ = ["largest_magnitude"]


def largest_magnitude(x: jax.Array) -> jax.Array:
    """``max|x|`` over the finite elements.

    Args:
      x: Any shape, floating or of signed integers (whose lowest value has no magnitude
        of its own dtype: widen it first).

    Returns:
      The dtype of `x`, ``[]``; 0 if no element is finite.

    Examples:
      >>> print(largest_magnitude(jnp.array([1.0, -3.0, jnp.inf, jnp.nan])))
      3.0
    """
    size = jnp.where(jnp.isfinite(x), jnp.abs(x), jnp.zeros_like(x))
    return jnp.max(size, initial=0)
