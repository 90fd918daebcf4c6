"""Products with a packed weight that never hold more than a tile of it dense.

Two plain-XLA forms, chosen by the number of rows of x:

- `tiles`: a scan over tiles of weights, each decoded and multiplied;
- `rows`, for up to four rows of x: codes are multiplied where they stand.

`benchmarks/quantized_matmul_cpu.py` compares them with decoding the whole weight first.
"""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jax.custom_derivatives import SymbolicZero

from jeff import base
from jeff.quantize import rows, tiles
from jeff.quantize.qtensor import QTensor

__all__ = ["fused", "matmul"]

_FEW_ROWS = 4  # up to here multiplying in place beats decoding to a tile


class _Options(NamedTuple):
    """Static settings of one product."""

    precision: Any
    tile: int | None


def matmul(
    x: jax.Array,
    w: QTensor,
    *,
    precision: Any = None,
    preferred_element_type: Any = None,
    tile: int | None = None,
) -> jax.Array:
    """``x @ w`` for a packed weight, without ever decoding all of it.

    Differentiable in `x` and in the scales (and floating zero points) of `w`, both
    ways; maps over `x` become more rows, maps over `w` a loop.

    Args:
      x: ``[..., K]``, floating.
      w: ``[K, N]`` contracted over its first axis, or ``[N, K]`` contracted over its
        last, which means ``x @ w.T``.
      precision: Of the products of tiles, as in `jax.numpy.matmul`.
      preferred_element_type: Dtype of the result; ``None`` promotes those of `x` and
        `w`. Sums run in float32 either way.
      tile: Weights to decode at a time, rounded to whole groups and tiles of codes;
        ``None`` picks, and multiplies in place where `x` has four rows or fewer.

    Returns:
      ``[..., N]``.

    Raises:
      ValueError: If `w` is not of two axes with one contracted, if the sizes of that
        axis and of the last one of `x` differ, or if `tile` is not positive.

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
    if tile is not None and tile < 1:
        raise ValueError(f"tile must be positive, got {tile}")
    dtype = preferred_element_type
    if dtype is None:
        dtype = jnp.promote_types(x.dtype, w.dtype)
    flat = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    y = _product(flat, w, _Options(precision, tile))
    return y.reshape(*x.shape[:-1], y.shape[-1]).astype(dtype)


def fused(
    site: Any, op: base.Operation, x: jax.Array, w: "jax.Array | base.StoredWeight"
) -> jax.Array:
    """The `jeff.base.Rule` that multiplies with packed weights where they stand.

    Applies at products with a `QTensor` matrix; anything else runs as before. Give it
    last: rules after it do not see the products that it makes.

    Args:
      site: The site; its `kind` and output `dtype` are read.
      op: The operation without this rule.
      x: ``[..., K]``.
      w: ``[K, N]``.

    Returns:
      ``[..., N]`` in the dtype of the site.

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
    return matmul(x, w, preferred_element_type=site.dtype)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _product(x: jax.Array, w: QTensor, options: _Options) -> jax.Array:
    """``[M, K] @ [K, N]`` in float32."""

    @custom_vmap
    def run(x, w):
        few = 1 <= x.shape[0] <= _FEW_ROWS and options.tile is None
        if few and rows.applies(w) and not tiles.contraction_is_sharded(x, w):
            return rows.multiply(x, w, precision=options.precision)
        return _tiled(x, w, options)

    @run.def_vmap
    def _mapped(size, mapped, x, w):
        x_mapped, w_mapped = mapped
        if not any(jax.tree.leaves(w_mapped)):
            y = _product(x.reshape(size * x.shape[1], x.shape[2]), w, options)
            return y.reshape(size, x.shape[1], y.shape[1]), True
        x, w = jax.tree.map(
            lambda a, m: a if m else jnp.broadcast_to(a, (size, *a.shape)),
            (x, w),
            (x_mapped, w_mapped),
        )
        return lax.map(lambda pair: _product(*pair, options), (x, w)), True

    return run(x, w)


@functools.partial(_product.defjvp, symbolic_zeros=True)
def _product_jvp(options, primals, tangents):
    # Linear in x, and in the scales and floating zero points one at a time. Tangents
    # take the tiled form, which JAX differentiates further and transposes.
    (x, w), (dx, dw) = primals, tangents
    terms = []
    if not isinstance(dx, SymbolicZero):
        terms.append(_tiled(dx, w, options))
    for name in ("scale", "zero"):
        tangent = getattr(dw, name)
        if tangent is None or isinstance(tangent, SymbolicZero):
            continue
        if jnp.issubdtype(getattr(w, name).dtype, jnp.floating):
            terms.append(
                jax.jvp(
                    lambda part, name=name: _tiled(
                        x, dataclasses.replace(w, **{name: part}), options
                    ),
                    (getattr(w, name),),
                    (tangent,),
                )[1]
            )
    y = _product(x, w, options)
    return y, sum(terms[1:], terms[0]) if terms else jnp.zeros_like(y)


def _tiled(x: jax.Array, w: QTensor, options: _Options) -> jax.Array:
    limit = tiles.TILE if options.tile is None else options.tile
    return tiles.multiply(x, w, tile=limit, precision=options.precision)
