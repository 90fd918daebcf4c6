"""Noise for tests of drawn voters."""

import jax
import jax.numpy as jnp

__all__ = ["light"]


def light(key, count):
    """A draw that is quick to compile and differs by key."""
    frequency = (jax.random.key_data(key)[0] % 997).astype(jnp.float32)
    return jnp.sin(frequency * jnp.arange(1, count + 1, dtype=jnp.float32))
