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

    Examples:
      A weight of signs, all that a subclass must have:

      >>> import dataclasses
      >>> @jax.tree_util.register_dataclass
      ... @dataclasses.dataclass(frozen=True)
      ... class Signs(StoredWeight):
      ...     negative: jax.Array
      ...     shape = property(lambda self: self.negative.shape)
      ...     dtype = jnp.dtype("float32")
      ...     def decode(self):
      ...         return jnp.where(self.negative, -1.0, 1.0)
      ...     def codes(self):
      ...         return self.negative.astype(jnp.uint8)
      ...     def with_codes(self, codes):
      ...         return Signs(codes == 1)
      >>> w = Signs(jnp.array([True, False]))
      >>> print(w.decode(), w.nbytes, w.ndim, w.size)
      [-1.  1.] 2 1 2
    """

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of the dense weight this stands for, a tuple of ints."""

    @property
    @abc.abstractmethod
    def dtype(self) -> jnp.dtype:
        """Dtype of the dense weight this stands for."""

    @abc.abstractmethod
    def decode(self) -> jax.Array:
        """The dense weight, of `shape` and `dtype`."""

    @abc.abstractmethod
    def codes(self) -> jax.Array:
        """The stored integers, unpacked, for fault injection.

        Returns:
          Unsigned integers, one per code that is really stored; usually of `shape`.
        """

    @abc.abstractmethod
    def with_codes(self, codes: jax.Array) -> "StoredWeight":
        """The same weight with other stored integers (inverse of `codes`).

        Args:
          codes: Of the shape and dtype of `codes`.

        Returns:
          A weight of the same class.
        """

    @property
    def code_bits(self) -> int:
        """How many low bits of a code are really stored; by default all of its dtype.

        A class whose codes are wider than what it stores says how many it stores.
        """
        return jnp.iinfo(jax.eval_shape(lambda: self.codes()).dtype).bits

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

        Args:
          axis: An axis of the dense weight, from either side.

        Returns:
          Whether ``jax.tree.map(lambda a: a[i], w)``, along that axis, is entry `i`.
        """
        del axis
        return False

    def transpose(self, permutation: Sequence[int]) -> "StoredWeight | None":
        """The weight with axes permuted.

        Args:
          permutation: Old axis of every new axis.

        Returns:
          The stored view, or ``None``.
        """
        del permutation
        return None

    def reshape(self, shape: Sequence[int]) -> "StoredWeight | None":
        """The weight with another shape of the same size.

        Args:
          shape: The new shape; no ``-1``.

        Returns:
          The stored view, or ``None``.
        """
        del shape
        return None

    def slice(
        self, starts: Sequence[int], limits: Sequence[int]
    ) -> "StoredWeight | None":
        """The part ``[starts, limits)``, of unit stride.

        Args:
          starts: First entry along every axis, static.
          limits: Entry after the last along every axis, static.

        Returns:
          The stored view, or ``None``.
        """
        del starts, limits
        return None

    def take(self, indices: jax.Array, axis: int) -> "StoredWeight | None":
        """Entries along `axis`, which is replaced by the axes of `indices`.

        Args:
          indices: Integers of any shape, may be traced; out of range as in `jnp.take`.
          axis: An axis of the dense weight.

        Returns:
          The stored view, or ``None``.
        """
        del indices, axis
        return None

    def astype(self, dtype: Any) -> "StoredWeight | None":
        """The weight decoding to another dtype.

        Args:
          dtype: Dtype of the result of `decode`.

        Returns:
          The stored view, or ``None``.
        """
        del dtype
        return None


def is_stored(x: Any) -> bool:
    """Whether `x` is a `StoredWeight`; the ``is_leaf`` of every walk over params.

    Args:
      x: Anything.

    Returns:
      True for a stored weight only.

    Examples:
      >>> is_stored(jnp.zeros(2))
      False
    """
    return isinstance(x, StoredWeight)


def decoded(x: Any) -> Any:
    """`x` with every `StoredWeight` in it decoded to a dense array.

    Args:
      x: A pytree, or one weight.

    Returns:
      The tree; other leaves are the same objects.

    Examples:
      >>> from jeff.quantize import QuantConfig, quantize
      >>> params = {"w": quantize(jnp.eye(2), QuantConfig(bits=2)), "b": jnp.zeros(2)}
      >>> print(decoded(params)["w"])
      [[1. 0.]
       [0. 1.]]
    """
    return jax.tree.map(
        lambda leaf: leaf.decode() if is_stored(leaf) else leaf, x, is_leaf=is_stored
    )


class Operation(Protocol):
    """What a `Rule` calls to redo the operation of a site on other operands.

    Examples:
      >>> import jeff
      >>> def doubled(site, op, x, w):
      ...     return op(2 * x, w)
      >>> run = jeff.rewrite(lambda p, x: x @ p, doubled)
      >>> print(run(jnp.eye(2), jnp.array([[1.0, 3.0]])))
      [[2. 6.]]
    """

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

    Examples:
      >>> import jeff
      >>> def noisy(site, op, x, w):
      ...     return op(x, w) + 0.5 if site.name == "w" else op(x, w)
      >>> run = jeff.rewrite(lambda p, x: (x @ p["w"]) @ p["v"], noisy)
      >>> print(run({"w": jnp.eye(2), "v": jnp.eye(2)}, jnp.zeros((1, 2))))
      [[0.5 0.5]]
    """

    def __call__(
        self,
        site: Any,
        op: Operation,
        x: jax.Array,
        w: "jax.Array | StoredWeight",
    ) -> jax.Array:
        """What the site gives instead.

        Args:
          site: Where it happens, a `jeff.program.Site`.
          op: The rest: other rules, then the original equation.
          x: Activation as the site presents it, see `Operation`.
          w: Weight as the site presents it, dense or stored.

        Returns:
          The site's output, of the same shape and dtype as ``op(x, w)``.
        """
        ...


class FaultModel(NamedTuple):
    """Faults as arrays: drawn once from a key, then applied by a pure function.

    Attributes:
      sample: ``sample(key, like) -> faults``; `like` is the array (or its shape and
        dtype) the faults will hit.
      inject: ``inject(faults, x) -> x``, of the same shape and dtype.
      sample_each: ``sample_each(keys, likes) -> faults of each``, a fast path for the
        faults of several arrays: equal to `sample` of each. ``None`` if there is none.

    Examples:
      >>> def sample(key, like):
      ...     return jax.random.bernoulli(key, 0.5, like.shape)
      >>> stuck_at_zero = FaultModel(sample, lambda hit, x: jnp.where(hit, 0.0, x))
      >>> x = jnp.ones(4)
      >>> print(stuck_at_zero.inject(jnp.array([True, False, False, True]), x))
      [0. 1. 1. 0.]
    """

    sample: Callable[[jax.Array, Any], Any]
    inject: Callable[[Any, jax.Array], jax.Array]
    sample_each: (
        Callable[[Sequence[jax.Array], Sequence[Any]], Sequence[Any]] | None
    ) = None


class Calibrator(NamedTuple):
    """Statistics gathered over batches, then turned into a plan.

    Attributes:
      init: ``init(params) -> state``.
      update: ``update(state, batch) -> state``, with the structure of `state` kept.
      finish: ``finish(state) -> plan``.

    Examples:
      >>> largest = Calibrator(
      ...     init=lambda params: jnp.float32(0.0),
      ...     update=lambda state, batch: jnp.maximum(state, jnp.abs(batch).max()),
      ...     finish=lambda state: 127.0 / state,
      ... )
      >>> state = largest.init(None)
      >>> for batch in (jnp.array([1.0, -4.0]), jnp.array([2.0, 0.0])):
      ...     state = largest.update(state, batch)
      >>> print(largest.finish(state))
      31.75
    """

    init: Callable[[Any], Any]
    update: Callable[[Any, Any], Any]
    finish: Callable[[Any], Any]


class Searcher(NamedTuple):
    """Black-box search by asking for candidates and telling their rewards.

    Attributes:
      init: ``init(key) -> state``.
      ask: ``ask(key, state) -> candidates``.
      tell: ``tell(state, candidates, rewards) -> (state, info)``; the state keeps its
        structure, and `info` is what a user may want to look at.

    Examples:
      Keep the best of random numbers:

      >>> def tell(best, candidates, rewards):
      ...     return jnp.maximum(best, candidates[rewards.argmax()]), rewards.max()
      >>> random_search = Searcher(
      ...     init=lambda key: jnp.float32(-jnp.inf),
      ...     ask=lambda key, best: jax.random.uniform(key, (8,)),
      ...     tell=tell,
      ... )
      >>> state = random_search.init(jax.random.key(0))
      >>> candidates = random_search.ask(jax.random.key(1), state)
      >>> state, info = random_search.tell(state, candidates, candidates)
      >>> bool(state == candidates.max())
      True
    """

    init: Callable[[jax.Array], Any]
    ask: Callable[[jax.Array, Any], Any]
    tell: Callable[[Any, Any, jax.Array], tuple[Any, Any]]
