"""Which key draws which weight: by leaf, place in its stack, voter and column."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jeff import prng, tree
from pallas_kernels import threefry

__all__ = ["leaf_key", "typed", "voter_key"]


def typed(key: jax.Array) -> jax.Array:
    """A typed key of the generator that voters are drawn with.

    Args:
      key: A typed or raw JAX key.

    Returns:
      The typed key.

    Raises:
      TypeError: If it is no key.
      ValueError: If it is not one key, or of another generator than Threefry: only
        counter-based draws are the same under every map.

    Examples:
      >>> typed(jax.random.PRNGKey(0)).dtype
      key<fry>
    """
    if not hasattr(key, "dtype"):
        raise TypeError(f"key must be a JAX key, got {key!r}")
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        if key.dtype != jnp.uint32 or key.shape != (2,):
            raise TypeError(
                f"key must be a JAX key, got {key.dtype} of shape {key.shape}"
            )
        key = jax.random.wrap_key_data(key, impl="threefry2x32")
    if key.shape != ():
        raise ValueError(f"key must be one key, got keys of shape {key.shape}")
    if str(jax.random.key_impl(key)) != "threefry2x32":
        raise ValueError(
            f"key must be of the generator threefry2x32, got {jax.random.key_impl(key)}"
        )
    return key


def leaf_key(key: jax.Array, name: str, *index: Any) -> jax.Array:
    """The key of one leaf, the same scanned or written out, at each of its uses.

    Args:
      key: A typed key.
      name: The leaf's name; layer numbers in it count like indices.
      *index: Entry of the stack, one (traced) number per loop through it.

    Returns:
      The key.

    Examples:
      >>> key = jax.random.key(0)
      >>> a, b = leaf_key(key, "layers.3.kernel"), leaf_key(key, "layers.kernel", 3)
      >>> bool(a == b)
      True
    """
    name, numbers = tree.split_indices(name)
    name = name.replace("#.", "").replace(".#", "")
    return prng.named_key(key, name, *index, *numbers)


def voter_key(
    key: jax.Array, indices: Sequence[Any], level: int, *, shared: bool
) -> jax.Array:
    """The key of a leaf's noise for one voter.

    Levels with one branch leave the key as it is, so that a program whose layers are
    written out (a level each) and one that scans them draw the same voters.

    Args:
      key: That of the leaf.
      indices: Branch taken at each level of the tree; ``None`` where there is only one.
      level: The leaf's level, from 1.
      shared: Whether all branches of a level use the same noise.

    Returns:
      The key; column n of the noise has ``fold_in`` of it with n. A kernel of several
      axes is the matrix ``[K, N]`` of its site: n counts through the axes that the
      product keeps, the last fastest, and a column's K numbers through those that it
      contracts.

    Examples:
      >>> key = jax.random.key(0)
      >>> a, b = (voter_key(key, i, 2, shared=True) for i in ((0, 4), (1, 4)))
      >>> bool(a == b), bool(voter_key(key, (3, None), 2, shared=False) == a)
      (True, False)
    """
    path = indices[:level]
    for index in path[-1:] if shared else path:
        if index is not None:
            key = threefry.fold_in(key, index)
    return key
