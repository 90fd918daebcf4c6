"""The five contracts that everything else in jeff is made of.

A *program* is any JAX function ``apply(params, *inputs)``. jeff changes how a weight is
kept (`StoredWeight`), what happens where it is used (`Rule`), what the hardware does to
it (`FaultModel`), and how the change is chosen (`Calibrator`, `Searcher`).
"""

import abc
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

__all__ = [
    "Calibrator",
    "FaultModel",
    "Operation",
    "Rule",
    "Searcher",
    "StoredWeight",
    "decoded",
    "is_stored",
]


class StoredWeight(abc.ABC):
    """A weight kept in another form than a dense array.

    Subclasses are registered pytrees whose leaves are arrays. They describe themselves
    from the shapes of those arrays plus static facts about *trailing* axes, so that
    JAX may slice, stack or batch the arrays behind the class's back (``scan``,
    ``vmap``, ``tree.map(lambda a: a[i])``) and the result is still a correct weight.

    The view methods (`transpose`, `reshape`, `slice`, `take`, `astype`) return ``None``
    when the stored form cannot express the view; callers then `decode`.
    """

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of the dense weight this stands for."""

    @property
    @abc.abstractmethod
    def dtype(self) -> jnp.dtype:
        """Dtype of the dense weight this stands for."""

    @abc.abstractmethod
    def decode(self) -> jax.Array:
        """The dense weight, of `shape` and `dtype`."""

    @abc.abstractmethod
    def codes(self) -> jax.Array:
        """The stored integers, unpacked, for fault injection."""

    @abc.abstractmethod
    def with_codes(self, codes: jax.Array) -> "StoredWeight":
        """The same weight with other stored integers (inverse of `codes`)."""

    @property
    def ndim(self) -> int:
        """Number of axes of the dense weight."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements of the dense weight."""
        total = 1
        for n in self.shape:
            total *= n
        return total

    @property
    def nbytes(self) -> int:
        """Bytes really held by the stored arrays."""
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(self))

    def can_index(self, axis: int) -> bool:
        """Whether every stored array may be indexed along `axis` like the dense one.

        True for stack axes and output axes of a quantized weight; false for an axis
        along which codes are packed or scales are grouped.
        """
        del axis
        return False

    def transpose(self, permutation: Sequence[int]) -> "StoredWeight | None":
        """The weight with axes permuted, or ``None``."""
        del permutation
        return None

    def reshape(self, shape: Sequence[int]) -> "StoredWeight | None":
        """The weight with another shape of the same size, or ``None``."""
        del shape
        return None

    def slice(
        self, starts: Sequence[int], limits: Sequence[int]
    ) -> "StoredWeight | None":
        """The part ``[starts, limits)`` (unit stride, static), or ``None``."""
        del starts, limits
        return None

    def take(self, indices: jax.Array, axis: int) -> "StoredWeight | None":
        """Entries along `axis`, which is replaced by the axes of `indices`."""
        del indices, axis
        return None

    def astype(self, dtype: Any) -> "StoredWeight | None":
        """The weight decoding to another dtype, or ``None``."""
        del dtype
        return None


def is_stored(x: Any) -> bool:
    """Whether `x` is a `StoredWeight`; the ``is_leaf`` of every walk over params."""
    return isinstance(x, StoredWeight)


def decoded(x: Any) -> Any:
    """`x` with every `StoredWeight` in it decoded to a dense array.

    Examples:
      >>> import jax.numpy as jnp
      >>> print(decoded({"b": jnp.zeros(2)})["b"])
      [0. 0.]
    """
    return jax.tree.map(
        lambda leaf: leaf.decode() if is_stored(leaf) else leaf, x, is_leaf=is_stored
    )


class Operation(Protocol):
    """What a `Rule` calls to redo the operation of a site on other operands."""

    def __call__(self, x: jax.Array, w: "jax.Array | StoredWeight") -> jax.Array:
        """Applies the next rule, or last of all the original equation.

        Args:
          x: Activation as the site presents it, ``[*batch, ..., K]`` for a product;
            the untouched image for a convolution; integer indices for a look-up.
          w: Weight as the site presents it, ``[*batch, K, N]``; dense or stored.

        Returns:
          ``[*batch, ..., N]`` for a product; the original output otherwise.
        """
        ...


class Rule(Protocol):
    """What happens at a site: ``rule(site, op, x, w) -> y``.

    A rule that has nothing to do at a site returns ``op(x, w)``. Rules nest: the first
    one given to `jeff.rewrite` is outermost, and its `op` runs the rest.
    """

    def __call__(
        self,
        site: Any,
        op: Operation,
        x: jax.Array,
        w: "jax.Array | StoredWeight",
    ) -> jax.Array:
        """Returns the site's output, of the same shape and dtype as ``op(x, w)``."""
        ...


class FaultModel(NamedTuple):
    """Faults as arrays: drawn once from a key, then applied by a pure function.

    Attributes:
      sample: ``sample(key, like) -> faults``; `like` is the array (or its shape and
        dtype) the faults will hit.
      inject: ``inject(faults, x) -> x``, of the same shape and dtype.
    """

    sample: Callable[[jax.Array, Any], Any]
    inject: Callable[[Any, jax.Array], jax.Array]


class Calibrator(NamedTuple):
    """Statistics gathered over batches, then turned into a plan.

    Attributes:
      init: ``init(params) -> state``.
      update: ``update(state, batch) -> state``, with the structure of `state` kept.
      finish: ``finish(state) -> plan``.
    """

    init: Callable[[Any], Any]
    update: Callable[[Any, Any], Any]
    finish: Callable[[Any], Any]


class Searcher(NamedTuple):
    """Black-box search by asking for candidates and telling their rewards.

    Attributes:
      init: ``init(key) -> state``.
      ask: ``ask(key, state) -> candidates``.
      tell: ``tell(state, candidates, rewards) -> (state, info)``.
    """

    init: Callable[[jax.Array], Any]
    ask: Callable[[jax.Array, Any], Any]
    tell: Callable[[Any, Any, jax.Array], tuple[Any, Any]]
