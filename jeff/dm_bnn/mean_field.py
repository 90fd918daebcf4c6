"""A weight that is a Gaussian: a mean and a standard deviation per entry."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jeff import base, tree

__all__ = ["MeanField", "posterior"]

_NUMBER = jax.tree.structure(0.0)
_PATTERN = {2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint64}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MeanField(base.StoredWeight):
    """Independent normal weights, ``w[i, j] ~ N(mean[i, j], std[i, j]^2)``.

    A posterior is a params tree some of whose leaves are of this class. Any program
    takes it: where nothing draws, the mean stands for the weight.

    Attributes:
      mean: Any shape, floating: bfloat16, float16, float32 or float64.
      std: Of the same shape and dtype, not negative.

    Examples:
      >>> w = MeanField(jnp.array([1.0, 2.0]), jnp.array([0.5, 0.0]))
      >>> print(w.decode(), w.shape, w.nbytes)
      [1. 2.] (2,) 16

    References:
      Mean field: arXiv 2005.03857, section on Bayesian neural networks; Blundell et
      al., "Weight uncertainty in neural networks", ICML 2015.
    """

    mean: jax.Array
    std: jax.Array

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one draw."""
        return self.mean.shape

    @property
    def dtype(self) -> Any:
        """Dtype of one draw."""
        return self.mean.dtype

    def decode(self) -> jax.Array:
        """The mean."""
        return self.mean

    def codes(self) -> jax.Array:
        """The bit patterns of both arrays.

        Returns:
          Unsigned integers as wide as the dtype, ``[*shape, 2]``: of the mean, of the
          standard deviation.

        Examples:
          >>> w = MeanField(jnp.ones(1), jnp.zeros(1))
          >>> print([hex(c) for c in w.codes()[0].tolist()])
          ['0x3f800000', '0x0']
        """
        pattern = _PATTERN[self.mean.dtype.itemsize]
        both = jnp.stack([self.mean, self.std], -1)
        return jax.lax.bitcast_convert_type(both, pattern)

    def with_codes(self, codes: jax.Array) -> "MeanField":
        """The weight with other bit patterns, such as damaged ones.

        Args:
          codes: As `codes` gives them.

        Returns:
          The weight; a standard deviation may come out negative or not finite.
        """
        both = jax.lax.bitcast_convert_type(codes, self.mean.dtype)
        return MeanField(both[..., 0], both[..., 1])

    def can_index(self, axis: int) -> bool:
        """Any axis may be indexed."""
        del axis
        return True

    def transpose(self, permutation: Sequence[int]) -> "MeanField":
        """Axes permuted."""
        return jax.tree.map(lambda a: jnp.transpose(a, permutation), self)

    def reshape(self, shape: Sequence[int]) -> "MeanField":
        """Another shape of the same size."""
        return jax.tree.map(lambda a: jnp.reshape(a, shape), self)

    def slice(self, starts: Sequence[int], limits: Sequence[int]) -> "MeanField":
        """The part ``[starts, limits)``."""
        return jax.tree.map(lambda a: jax.lax.slice(a, starts, limits), self)

    def take(self, indices: jax.Array, axis: int) -> "MeanField":
        """Entries along `axis`."""
        return jax.tree.map(lambda a: jnp.take(a, indices, axis=axis), self)

    def astype(self, dtype: Any) -> "MeanField | None":
        """Both arrays in another dtype; ``None`` if it is not floating."""
        if not jnp.issubdtype(dtype, jnp.floating):
            return None
        return jax.tree.map(lambda a: a.astype(dtype), self)


def posterior(
    params: Any,
    std: float | Any,
    *,
    where: Callable[[str, jax.Array], bool] | None = None,
) -> Any:
    """A deterministic network with Gaussian weights around its parameters.

    Args:
      params: Any pytree of arrays.
      std: Standard deviations: one number for all, or a tree like `params` of arrays
        that broadcast to its leaves.
      where: ``where(name, leaf)``, which leaves become random; ``None``: all floating
        leaves that are not stored weights already.

    Returns:
      `params` with `MeanField` leaves; others are the same objects.

    Raises:
      ValueError: If a standard deviation is negative or not finite, or `std` has other
        leaves than `params` or a shape that does not broadcast.
      TypeError: If `where` picks a leaf that is not floating, or is stored.

    Examples:
      >>> params = {"w": jnp.ones((2, 2)), "b": jnp.zeros(2)}
      >>> random = posterior(params, 0.1, where=lambda name, leaf: name == "w")
      >>> print(random["w"].std[0], random["b"])
      [0.1 0.1] [0. 0.]
    """
    leaves, treedef = tree.flatten(params)
    if jax.tree.structure(std) == _NUMBER and jnp.ndim(std) == 0:
        widths = dict.fromkeys(leaves, std)
    else:
        widths, _ = tree.flatten(std)
        if list(widths) != list(leaves):
            different = sorted(set(widths) ^ set(leaves))
            raise ValueError(
                f"std must be a tree like params; they differ: {different}"
            )
    made = {}
    for name, leaf in leaves.items():
        kind = leaf.dtype if base.is_stored(leaf) else jnp.result_type(leaf)
        floating = not base.is_stored(leaf) and jnp.issubdtype(kind, jnp.floating)
        if not (floating if where is None else where(name, leaf)):
            made[name] = leaf
            continue
        if not floating or jnp.dtype(kind).itemsize not in _PATTERN:
            raise TypeError(
                f"a random leaf must be floating, of 16, 32 or 64 bits; {name!r} "
                f"is {type(leaf).__name__} of {kind}"
            )
        mean = jnp.asarray(leaf)
        made[name] = MeanField(mean, _widths(name, mean, widths[name]))
    return treedef.unflatten(made.values())


def _widths(name: str, leaf: jax.Array, std: Any) -> jax.Array:
    if not isinstance(std, Tracer):
        value = np.asarray(std, np.float64)
        if not (np.isfinite(value).all() and (value >= 0).all()):
            raise ValueError(
                f"std of {name!r} must be finite and at least 0; its smallest is "
                f"{value.min()}, its largest {value.max()}"
            )
    try:
        return jnp.broadcast_to(jnp.asarray(std, leaf.dtype), leaf.shape)
    except ValueError as error:
        raise ValueError(
            f"std of {name!r} has shape {jnp.shape(std)}, the leaf {leaf.shape}"
        ) from error
