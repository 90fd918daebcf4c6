"""Kinds of single bit flips, by layer and bit: strata, or what a proposal is over."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jeff.prng import named_key
from jeff.sweep.single_flips.fault_space import Fault, FaultSpace, enumerate_faults
from jeff.sweep.single_flips.uniform import uniform_below

__all__ = ["BY", "FaultKinds", "fault_kinds"]

BY = ("layer_bit", "layer", "bit")
"""What the faults of a kind have in common."""


@dataclasses.dataclass(frozen=True)
class FaultKinds:
    """A fault space split into kinds; made by `fault_kinds`.

    A *cell* is one bit of all words of one leaf; a kind is one cell or several.

    Attributes:
      space: The faults.
      names: Names of the kinds, such as ``"layers.0.kernel bit 7"``.
      sizes: Number of faults of every kind.
      cells: ``(kind, leaf, bit)`` of every cell, kind after kind.
    """

    space: FaultSpace
    names: tuple[str, ...]
    sizes: tuple[int, ...]
    cells: tuple[tuple[int, int, int], ...]

    def __len__(self) -> int:
        """Number of kinds."""
        return len(self.names)

    @property
    def target(self) -> np.ndarray:
        """Shares of the kinds in all faults, float64 ``[kinds]``."""
        return np.asarray(self.sizes, np.float64) / sum(self.sizes)

    def draw(self, key: jax.Array, kind: Any) -> Fault:
        """One fault of a kind, each alike.

        Args:
          key: A key.
          kind: Number of the kind, an integer scalar, usually traced.

        Returns:
          The fault, int32 scalars. Probabilities are met to 2^-32.
        """
        number, leaf, bit = np.asarray(self.cells, np.int32).T
        words = np.asarray(self.space.words, np.int64)[leaf]
        # Where every cell of a kind ends, in units of 2^-32 of the kind; the last one
        # takes what is left.
        before = np.concatenate([[0], np.cumsum(self.sizes)])[number]
        ends = (np.cumsum(words) - before) / np.asarray(self.sizes)[number]
        ends = np.minimum(np.round(ends * 2.0**32), 2.0**32 - 1).astype(np.uint32)
        last = np.append(number[1:] != number[:-1], True)
        word = jax.random.bits(named_key(key, "cell"), dtype=jnp.uint32)
        kind = jnp.asarray(kind, jnp.int32)
        here = (jnp.asarray(number) == kind) & ~jnp.asarray(last)
        passed = (jnp.asarray(number) < kind) | (here & (jnp.asarray(ends) <= word))
        cell = jnp.sum(passed, dtype=jnp.int32)
        size = jnp.asarray(words, jnp.int32)[cell]
        position = uniform_below(named_key(key, "word"), size)
        return Fault(jnp.asarray(leaf)[cell], position, jnp.asarray(bit)[cell])


def fault_kinds(space: FaultSpace, params: Any, by: str) -> FaultKinds:
    """The kinds of the faults of some weights.

    Args:
      space: The faults, from `enumerate_faults`.
      params: The weights that they are to be injected into.
      by: ``"layer_bit"``: a kind is a bit of a leaf; ``"layer"``: a leaf; ``"bit"``:
        a bit position, of all leaves that have it.

    Returns:
      The kinds, leaf by leaf and bit by bit.

    Raises:
      ValueError: If `by` is no such word, the space is of other weights, or a leaf has
        2^31 words or more.

    Examples:
      >>> params = {"b": np.zeros(2, np.int8), "w": np.zeros(6, np.int8)}
      >>> space = enumerate_faults(params)
      >>> kinds = fault_kinds(space, params, "bit")
      >>> kinds.names[7], kinds.sizes[7], kinds.cells[-2:]
      ('bit 7', 8, ((7, 0, 7), (7, 1, 7)))
      >>> print(jax.jit(kinds.draw)(jax.random.key(0), 7).bit)
      7
    """
    if by not in BY:
        raise ValueError(f"by must be one of {BY}, got {by!r}")
    same = enumerate_faults(params, where=space.names)
    own = dict(zip(same.names, zip(same.words, same.bits, strict=True), strict=True))
    for name, words, bits in zip(space.names, space.words, space.bits, strict=True):
        own_words, own_bits = own.get(name, (0, bits))
        if not words or (own_words, own_bits) != (words, bits):
            raise ValueError(
                f"space is of other params: leaf {name!r} has {own_words} words of "
                f"{own_bits} bits, there {words} of {bits}"
            )
        if words >= 2**31:
            raise ValueError(f"leaf {name!r} has 2^31 words or more")
    labels: dict[str, int] = {}
    cells = []
    for i, (name, bits) in enumerate(zip(space.names, space.bits, strict=True)):
        for bit in range(bits):
            label = {"layer_bit": f"{name} bit {bit}", "layer": name}.get(
                by, f"bit {bit}"
            )
            cells.append((labels.setdefault(label, len(labels)), i, bit))
    sizes = [0] * len(labels)
    for kind, leaf, _ in cells:
        sizes[kind] += space.words[leaf]
    return FaultKinds(space, tuple(labels), tuple(sizes), tuple(sorted(cells)))
