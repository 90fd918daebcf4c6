"""One fault of a fault space put into the weights."""

from typing import Any

import jax.numpy as jnp

from jeff import base, tree
from jeff.sweep.single_flips.fault_space import Fault, FaultSpace, stored_words
from jeff.sweep.single_flips.one_flip import flip_word

__all__ = ["inject_fault"]


def inject_fault(params: Any, fault: Fault, space: FaultSpace) -> Any:
    """The weights with one bit flipped; flipping it again gives them back.

    Args:
      params: The pytree that `space` was made of.
      fault: Integer scalars, usually traced; a bit below 0 flips nothing.
      space: The leaves that faults are counted in.

    Returns:
      A pytree of the same structure, shapes and dtypes; of a stored leaf the codes are
      hit.

    Raises:
      KeyError: If `params` lacks a leaf of `space`.

    Examples:
      >>> from jeff.sweep import enumerate_faults
      >>> params = {"b": jnp.zeros(2, jnp.int8), "w": jnp.array([0, 5], jnp.int8)}
      >>> space = enumerate_faults(params)
      >>> print(inject_fault(params, Fault(leaf=1, position=1, bit=7), space))
      {'b': Array([0, 0], dtype=int8), 'w': Array([   0, -123], dtype=int8)}
    """
    leaf_number, position, bit_number = (jnp.asarray(x, jnp.int32) for x in fault)
    changes = {}
    for i, name in enumerate(space.names):
        leaf = tree.get(params, name)
        bit = jnp.where(leaf_number == i, bit_number, -1)  # below 0: none
        flipped = flip_word(jnp.asarray(stored_words(leaf)), position, bit)
        changes[name] = leaf.with_codes(flipped) if base.is_stored(leaf) else flipped
    return tree.update(params, changes)
