"""Single bit flips of the weights of a net, numbered.

A fault is a number: leaf after leaf in tree order, word after word in row-major order,
bit after bit from the lowest. Drawing numbers is sampling faults, and the numbers of a
layer's bit are a stratum; all of it is integer arithmetic.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import core

from jeff import base, tree
from jeff.faults.stored_words import stored_bits
from jeff.faults.where import Where, chosen

__all__ = ["Fault", "FaultSpace", "enumerate_faults", "stored_words"]

_LIMIT = 2**31  # numbers are int32 in a compiled program


class Fault(NamedTuple):
    """Where bit flips are; integers, or integer arrays of one shape.

    Attributes:
      leaf: Number of the leaf in `FaultSpace.names`.
      position: Number of the word in the leaf, row-major.
      bit: Bit of the word, 0 the lowest.
    """

    leaf: Any
    position: Any
    bit: Any


@dataclasses.dataclass(frozen=True)
class FaultSpace:
    """All single bit flips of some leaves, numbered; made by `enumerate_faults`.

    Attributes:
      names: Names of the leaves, in tree order.
      words: Number of stored words of every leaf.
      bits: Number of bits of every leaf's words.

    Examples:
      >>> space = FaultSpace(("b", "w"), (2, 4), (32, 8))
      >>> len(space), space.number("w", 3, 7)
      (96, 95)
      >>> space.locate(95)
      Fault(leaf=1, position=3, bit=7)
      >>> space.strata()[-1]
      ('w bit 7', 4)
    """

    names: tuple[str, ...]
    words: tuple[int, ...]
    bits: tuple[int, ...]

    def __len__(self) -> int:
        """Number of faults."""
        return sum(w * b for w, b in zip(self.words, self.bits, strict=True))

    @property
    def starts(self) -> tuple[int, ...]:
        """Number of the first fault of every leaf."""
        sizes = [w * b for w, b in zip(self.words, self.bits, strict=True)]
        return tuple(sum(sizes[:i]) for i in range(len(sizes)))

    def locate(self, number: Any) -> Fault:
        """The fault of a number.

        Args:
          number: An integer, or an integer array, which may be traced.

        Returns:
          Leaf, position and bit, of the shape of `number`: Python integers for one,
          int64 on the host, int32 in a trace.

        Raises:
          ValueError: If a known number is not in ``[0, len(self))``, or a traced one
            may be too large for int32.
        """
        if isinstance(number, core.Tracer):
            self.check_traceable()
            return self._located(number.astype(jnp.int32), jnp, jnp.int32)
        numbers = np.asarray(number)
        self._check("number", numbers, len(self))
        found = self._located(numbers.astype(np.int64), np, np.int64)
        return found if numbers.ndim else Fault(*(int(x) for x in found))

    def number(self, leaf: Any, position: Any, bit: Any) -> Any:
        """The number of a fault, the inverse of `locate`.

        Args:
          leaf: A leaf's name, or numbers of leaves.
          position: Number of the word in the leaf.
          bit: Bit of the word.

        Returns:
          int64 of the arguments' common shape; a Python integer for one fault.

        Raises:
          ValueError: If a leaf, a word or a bit does not exist.
        """
        if isinstance(leaf, str):
            if leaf not in self.names:
                raise ValueError(f"no leaf {leaf!r}; {tree.nearest(leaf, self.names)}")
            leaf = self.names.index(leaf)
        leaf, position, bit = np.broadcast_arrays(leaf, position, bit)
        self._check("leaf", leaf, len(self.names))
        words, bits = np.asarray(self.words)[leaf], np.asarray(self.bits)[leaf]
        self._check("position", position, words)
        self._check("bit", bit, bits)
        number = np.asarray(self.starts)[leaf] + position.astype(np.int64) * bits + bit
        return number if number.ndim else int(number)

    def strata(self) -> tuple[tuple[str, int], ...]:
        """Name and number of faults of every stratum: leaf by leaf, bit by bit."""
        return tuple(
            (f"{name} bit {bit}", words)
            for name, words, bits in zip(self.names, self.words, self.bits, strict=True)
            for bit in range(bits)
        )

    def stratum(self, number: Any) -> Any:
        """Which entry of `strata` faults belong to.

        Args:
          number: As for `locate`, on the host.

        Returns:
          int64 of the shape of `number`.

        Raises:
          ValueError: If a number is not in ``[0, len(self))``.
        """
        found = self.locate(number)
        first = np.cumsum([0, *self.bits])[np.asarray(found.leaf)]
        return first + np.asarray(found.bit)

    def _located(self, number, numpy, dtype) -> Fault:
        starts = numpy.asarray(self.starts, dtype)
        leaf = numpy.searchsorted(starts, number, side="right").astype(dtype) - 1
        bits = numpy.asarray(self.bits, dtype)[leaf]
        within = number - starts[leaf]
        return Fault(leaf, within // bits, within % bits)

    def check_traceable(self) -> None:
        """Refuses numbers that int32 cannot hold.

        Raises:
          ValueError: If there are 2^31 faults or more.
        """
        if len(self) >= _LIMIT:
            raise ValueError(f"{len(self)} faults are too many for int32 numbers")

    @staticmethod
    def _check(name: str, values: np.ndarray, limit: Any) -> None:
        if not np.issubdtype(values.dtype, np.integer):
            raise ValueError(f"{name} must be integers, not {values.dtype}")
        bad = (values < 0) | (values >= limit)
        if bad.any():
            most = np.broadcast_to(limit, values.shape)[bad][0]
            raise ValueError(f"{name} must be in [0, {most}): {values[bad][0]}")


def enumerate_faults(
    params: Any,
    *,
    where: Where | None = None,
) -> FaultSpace:
    """Numbers all single bit flips of the weights of a net.

    Dense leaves have the bits of their dtype; a `StoredWeight` has the bits that its
    codes really hold. Leaves without words are left out.

    Args:
      params: A pytree of arrays, or of shapes and dtypes.
      where: Which leaves: a regular expression to find in the name, names, or
        ``where(name, leaf)``; ``None``: all.

    Returns:
      The numbering.

    Raises:
      ValueError: If a name is no leaf's, or no leaf with words is chosen.
      TypeError: If a chosen leaf has no words to flip bits of, or `where` is of another
        kind.

    Examples:
      >>> params = {"w": jnp.zeros((3, 4), jnp.int8), "scale": jnp.ones(4)}
      >>> enumerate_faults(params, where="^w$")
      FaultSpace(names=('w',), words=(12,), bits=(8,))
      >>> len(enumerate_faults(params))
      224
    """
    leaves, _ = tree.flatten(params)
    names = chosen(where, leaves, lambda name, leaf: True, "leaf")
    found = []
    for name in names:
        leaf = leaves[name]
        codes = jax.eval_shape(stored_words, leaf)
        try:
            bits = stored_bits(codes)
        except TypeError as error:
            raise TypeError(f"leaf {name!r}: {error}") from None
        if base.is_stored(leaf):
            bits = leaf.code_bits
        if codes.size:
            found.append((name, codes.size, bits))
    if not found:
        raise ValueError(f"no leaf has words: {', '.join(names)}")
    return FaultSpace(*zip(*found, strict=True))


def stored_words(leaf: Any) -> Any:
    """The array whose bits are stored.

    Args:
      leaf: A dense array or a `StoredWeight`.

    Returns:
      The array itself, or the codes.

    Examples:
      >>> print(stored_words(jnp.zeros(2, jnp.int8)))
      [0 0]
    """
    return leaf.codes() if base.is_stored(leaf) else leaf
