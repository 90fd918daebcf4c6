"""Random keys by name, so that a draw never depends on chunking, order or devices."""

import zlib
from collections.abc import Sequence

import jax
import numpy as np

__all__ = ["named_key", "named_keys"]


def named_key(key: jax.Array, name: str, *indices: "int | jax.Array") -> jax.Array:
    """A key that depends on `key`, a name and any number of (traced) indices.

    The name enters through its CRC-32, which is the same on every machine and in
    every process (Python's own ``hash`` is not).

    Args:
      key: A typed or raw JAX key.
      name: What the key is for, such as a leaf's path.
      *indices: Integers or traced integer scalars, folded in one after another.

    Returns:
      A key of the same kind as `key`.

    Examples:
      >>> import jax
      >>> key = jax.random.key(0)
      >>> a, b = named_key(key, "q.kernel"), named_key(key, "k.kernel")
      >>> bool((jax.random.key_data(a) == jax.random.key_data(b)).all())
      False
    """
    key = jax.random.fold_in(key, zlib.crc32(name.encode()))
    for index in indices:
        key = jax.random.fold_in(key, index)
    return key


def named_keys(key: jax.Array, names: Sequence[str]) -> jax.Array:
    """``named_key(key, name)`` of several names, in one operation.

    Args:
      key: A typed or raw JAX key.
      names: What the keys are for.

    Returns:
      Keys ``[names]``, of the kind of `key`.

    Examples:
      >>> import jax
      >>> key = jax.random.key(0)
      >>> both = named_keys(key, ["q", "k"])
      >>> both.shape, bool(both[1] == named_key(key, "k"))
      ((2,), True)
    """
    crc = np.array([zlib.crc32(name.encode()) for name in names], np.uint32)
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, crc)
