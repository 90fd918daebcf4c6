"""Training parameters without constraints: a standard deviation is a softplus."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jeff.dm_bnn.mean_field import MeanField

__all__ = ["Free", "from_free", "to_free"]


class Free(NamedTuple):
    """A `MeanField` in coordinates that may take any value.

    Attributes:
      mean: Any shape, floating.
      rho: Of that shape, float32 or wider: ``std = ln(1 + exp(rho))``.

    Examples:
      >>> free = to_free(MeanField(jnp.ones(1), jnp.full(1, 0.6931472)))
      >>> print(free.rho.round(5))
      [0.]
    """

    mean: jax.Array
    rho: jax.Array


def to_free(posterior: Any) -> Any:
    """A posterior with `Free` in place of `MeanField`, for gradients.

    ``rho = std + ln(1 - exp(-std))``, the inverse of the softplus in a form that loses
    nothing for small `std`: going there and back changes `std` by about ``|rho|``
    roundings. It is kept in float32 for bfloat16 and float16 too, which could not tell
    neighboring values apart.

    Args:
      posterior: Params tree with `MeanField` leaves; their `std` must be positive (0
        becomes ``-inf``, which no gradient moves).

    Returns:
      The tree; other leaves are the same objects.

    Examples:
      >>> free = to_free({"w": MeanField(jnp.ones(2), jnp.full(2, 1e-12)), "b": 0.5})
      >>> print(free["w"].rho, free["b"])
      [-27.631021 -27.631021] 0.5
      >>> bool(abs(from_free(free)["w"].std / 1e-12 - 1).max() < 1e-5)
      True

    References:
      Blundell et al. 2015 (arXiv 1505.05424), section 3.2.
    """
    return jax.tree.map(
        lambda leaf: _freed(leaf) if isinstance(leaf, MeanField) else leaf,
        posterior,
        is_leaf=lambda leaf: isinstance(leaf, MeanField),
    )


def from_free(free: Any) -> Any:
    """The posterior of training parameters; inverse of `to_free`.

    Args:
      free: Params tree with `Free` leaves.

    Returns:
      The tree with `MeanField` leaves, whose `std` has the dtype of the mean; other
      leaves are the same objects.

    Examples:
      >>> print(from_free(Free(jnp.ones(1), jnp.zeros(1))).std)
      [0.6931472]
    """
    return jax.tree.map(
        lambda leaf: _bound(leaf) if isinstance(leaf, Free) else leaf,
        free,
        is_leaf=lambda leaf: isinstance(leaf, Free),
    )


@jax.jit
def _freed(weight: MeanField) -> Free:
    std = weight.std.astype(np.promote_types(weight.std.dtype, jnp.float32))
    return Free(weight.mean, std + jnp.log(-jnp.expm1(-std)))


@jax.jit
def _bound(free: Free) -> MeanField:
    return MeanField(free.mean, jax.nn.softplus(free.rho).astype(free.mean.dtype))
