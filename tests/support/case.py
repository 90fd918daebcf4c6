"""What one entry of the zoo of small models consists of."""

import dataclasses
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jeff import tree

__all__ = ["Case", "filled", "normal", "tokens"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """A small program, its arguments, and the sites a reader finds in it by hand.

    Attributes:
      apply: ``apply(params, *inputs)``, a pure function.
      params: Params tree.
      inputs: The other arguments.
      linears: Leaf name to number of equations that multiply it with an activation
        (products, ragged products, convolutions), each equation of a loop body or of
        a branch counted once; also if the leaf is sliced, gathered or concatenated
        with others first.
      lookups: Leaf name to number of equations that look rows of it up as activations.
      derived: For each site whose weight is computed from several leaves, or from one
        by arithmetic: the names of those leaves. Such leaves are not in `linears`.
      axis_sizes: Sizes of named axes the program expects around itself.
      differentiable: Whether ``jax.grad`` with respect to the floating leaves works.
      marks: Properties to select cases by, such as ``"scan"`` or ``"bfloat16"``.
    """

    apply: Callable[..., Any]
    params: Any
    inputs: tuple[Any, ...]
    linears: Mapping[str, int]
    lookups: Mapping[str, int] = dataclasses.field(default_factory=dict)
    derived: tuple[frozenset[str], ...] = ()
    axis_sizes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    differentiable: bool = True
    marks: frozenset[str] = frozenset()

    def bound(self, fn: Callable[..., Any] | None = None) -> Callable[..., Any]:
        """`fn` (or `apply`) inside the named axes it expects, if it expects any.

        Every axis is bound with ``vmap`` over equal copies; the outputs get one
        leading axis for each.
        """
        fn = self.apply if fn is None else fn
        for name, size in self.axis_sizes.items():
            fn = jax.vmap(fn, in_axes=None, axis_name=name, axis_size=size)
        return fn

    def loss(self, params: Any) -> jax.Array:
        """A scalar, float32, that depends on every floating output and leaf used."""
        total = jnp.float32(0)
        for out in jax.tree.leaves(self.bound()(params, *self.inputs)):
            if jnp.issubdtype(out.dtype, jnp.floating):
                total += jnp.sum(jnp.sin(out.astype(jnp.float32) + 0.3))
        return total


def normal(seed: int, *shape: int, dtype: Any = np.float32) -> jax.Array:
    """Normal numbers; a matrix is scaled so that it keeps the variance of its input.

    Made by NumPy: drawing each shape with JAX would compile a program for each.
    """
    fan_in = shape[-2] if len(shape) > 1 else 1
    x = np.random.default_rng(seed).standard_normal(shape) / fan_in**0.5
    return jnp.asarray(x.astype(dtype))


def tokens(seed: int, *shape: int, vocabulary: int) -> jax.Array:
    """Integers in ``[0, vocabulary)``, int32."""
    x = np.random.default_rng(seed).integers(0, vocabulary, shape, np.int32)
    return jnp.asarray(x)


def filled(seed: int, abstract: Any) -> Any:
    """A tree of arrays for a tree of shapes and dtypes, without running an initialiser.

    Variances and scales are near one, other floats normal (`normal`); integers are
    zero, random keys ``jax.random.key(seed)``.
    """

    def fill(name: str, leaf: Any) -> jax.Array:
        number = zlib.crc32(f"{seed} {name}".encode())
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jnp.broadcast_to(jax.random.key(seed), leaf.shape)
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return jnp.asarray(np.zeros(leaf.shape, leaf.dtype))
        last = name.rsplit(".", 1)[-1]
        if last in ("scale", "var"):
            rng = np.random.default_rng(number)
            return jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape).astype(leaf.dtype))
        return normal(number, *leaf.shape, dtype=leaf.dtype)

    return tree.map_with_path(fill, abstract)
