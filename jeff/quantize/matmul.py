"""Products with a packed weight that never hold more than a tile of it dense.

The products themselves are `pallas_kernels.dequant_matmul`: a Pallas kernel on Hopper
GPUs, tiles in plain XLA anywhere else.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jeff import base
from jeff.quantize.qtensor import QTensor
from pallas_kernels import dequant_matmul

__all__ = ["fused", "matmul"]


def matmul(
    x: jax.Array,
    w: QTensor,
    *,
    precision: Any = None,
    preferred_element_type: Any = None,
    tile: int | None = None,
    implementation: str | Sequence[str] | None = None,
) -> jax.Array:
    """``x @ w`` for a packed weight, without ever decoding all of it.

    Differentiable in `x` and in the scales (and floating zero points) of `w`, both
    ways; maps over `x` become more rows, maps over `w` a stack of weights.

    Args:
      x: ``[..., K]``, floating.
      w: ``[K, N]`` contracted over its first axis, or ``[N, K]`` contracted over its
        last, which means ``x @ w.T``.
      precision: Of the products of tiles, as in `jax.numpy.matmul`.
      preferred_element_type: Dtype of the result; ``None`` promotes those of `x` and
        `w`. Sums run in float32 either way.
      tile: Weights to decode at a time, rounded to whole groups and tiles of codes;
        ``None`` picks, and multiplies in place where `x` has four rows or fewer.
      implementation: As in `pallas_kernels.dequant_matmul`: ``None`` takes the GPU
        kernel where it can, and plain XLA elsewhere. Where weights decode to 16 bits,
        the two differ by their rounding, which the kernel does without.

    Returns:
      ``[..., N]``.

    Raises:
      ValueError: If `w` is not of two axes with one contracted, if the sizes of that
        axis and of the last one of `x` differ, or if `tile` is not positive.
      NotImplementedError: If `implementation` names one that cannot do this product.

    Examples:
      >>> from jeff.quantize import QuantConfig, quantize
      >>> w = quantize(jnp.eye(64), QuantConfig(bits=3, group_size=32))
      >>> print(matmul(jnp.arange(64.0), w)[:4])
      [0. 1. 2. 3.]
    """
    if w.ndim != 2 or w.contract not in ((-2,), (-1,)):
        raise ValueError(
            f"w must be a matrix contracted over one axis, got shape {w.shape} "
            f"contracted over {w.contract}"
        )
    if w.contract == (-1,):
        w = w.transpose((1, 0))
    if x.shape[-1:] != w.shape[:1]:
        raise ValueError(f"x of shape {x.shape} does not fit w of shape {w.shape}")
    dtype = preferred_element_type
    if dtype is None:
        dtype = jnp.promote_types(x.dtype, w.dtype)
    return dequant_matmul.dequant_matmul(
        x,
        w.packed,
        w.scale,
        w.zero,
        bits=w.bits,
        group_size=w.shape[0] // w.scale.shape[0],
        stride=w.stride,
        implementation=implementation,
        preferred_element_type=dtype,
        decode_dtype=w.dtype,
        precision=precision,
        tile=tile,
    )


def fused(
    site: Any,
    op: base.Operation,
    x: jax.Array,
    w: "jax.Array | base.StoredWeight",
    *,
    implementation: str | Sequence[str] | None = None,
) -> jax.Array:
    """The `jeff.base.Rule` that multiplies with packed weights where they stand.

    Applies at products with a `QTensor` matrix; anything else runs as before. Give it
    last: rules after it do not see the products that it makes.

    Args:
      site: The site; its `kind` and output `dtype` are read.
      op: The operation without this rule.
      x: ``[..., K]``.
      w: ``[K, N]``.
      implementation: As in `matmul`; bind it with `functools.partial` to choose.

    Returns:
      ``[..., N]`` in the dtype of the site.

    Raises:
      NotImplementedError: If `implementation` names one that cannot do a product.

    Examples:
      >>> import jeff
      >>> from jeff.quantize import QuantConfig, fused, quantize
      >>> params = {"w": quantize(jnp.eye(64), QuantConfig(bits=4))}
      >>> apply = jeff.rewrite(lambda params, x: x @ params["w"], fused)
      >>> print(apply(params, jnp.arange(64.0))[:4])
      [0. 1. 2. 3.]
    """
    if not isinstance(w, QTensor) or site.kind != "dot":
        return op(x, w)
    if w.ndim != 2 or w.contract != (-2,):
        return op(x, w)
    return matmul(
        x, w, preferred_element_type=site.dtype, implementation=implementation
    )
