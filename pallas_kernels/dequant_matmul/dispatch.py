"""Which implementation of the product runs, and running it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pallas_kernels import choice, hopper
from pallas_kernels.dequant_matmul import (
    contraction,
    mosaic_gpu,
    reference,
    sharded,
    tuning,
    xla,
)
from pallas_kernels.dequant_matmul.config import MAX_ROWS, Config
from pallas_kernels.dequant_matmul.operand import Operand

__all__ = ["Options", "resolve", "run"]


class Options(NamedTuple):
    """Static settings of one product; see `dequant_matmul`.

    Attributes:
      implementation: A name, several to try in order, or ``None``.
      out_dtype: Dtype of the result.
      decode_dtype: Dtype that decoded weights are rounded to.
      precision: Of dense products.
      tile: Weights that ``"xla"`` decodes at a time, or ``None``.
      config: Settings of the kernel, or ``None``.
    """

    implementation: str | Sequence[str] | None
    out_dtype: Any
    decode_dtype: Any = jnp.float32
    precision: Any = None
    tile: int | None = None
    config: Config | None = None


def resolve(x: jax.Array, w: Operand, options: Options) -> str:
    """The implementation that would run.

    ``None`` takes ``"mosaic_gpu"`` on a GPU of compute capability 9.0, where the kernel
    can do the product and x has at most `MAX_ROWS` rows (beyond, decoding first is
    better), and ``"xla"`` anywhere else: it never fails.

    Args:
      x: ``[..., M, K]``.
      w: ``[..., K, N]``.
      options: Settings.

    Returns:
      Its name.

    Raises:
      ValueError: If a name is unknown.
      NotImplementedError: If the one implementation that was named cannot do it.
      ExceptionGroup: Of such errors, if none of several can.
    """
    implementation = options.implementation
    if implementation is None:
        few = x.shape[-2] <= MAX_ROWS
        able = hopper.is_hopper() and _why_not(x, w, "mosaic_gpu", options) is None
        return "mosaic_gpu" if few and able else "xla"
    return choice.chosen(implementation, lambda name: _why_not(x, w, name, options))


def run(x: jax.Array, w: Operand, options: Options) -> jax.Array:
    """The product.

    Args:
      x: ``[M, K]`` or ``[L, M, K]``.
      w: ``[K, N]`` or ``[L, K, N]``.
      options: Settings.

    Returns:
      ``[M, N]`` or ``[L, M, N]``.
    """
    if 0 in (*x.shape, *w.words.shape):
        return jnp.zeros((*x.shape[:-1], w.columns), options.out_dtype)
    name = resolve(x, w, options)
    if name == "mosaic_gpu":
        return sharded.partitioned(_kernel(options), x, w, options.out_dtype)
    if name == "interpret":
        return mosaic_gpu.multiply(
            x, w, out_dtype=options.out_dtype, config=options.config, interpret=True
        )
    decoding = {"decode_dtype": options.decode_dtype, "precision": options.precision}
    if name == "reference":
        y = reference.multiply(x, w, **decoding)
    else:
        y = xla.multiply(x, w, tile=options.tile, **decoding)
    return y.astype(options.out_dtype)


def _kernel(options: Options):
    """The kernel of arrays on one device, with settings for what that device has."""

    def multiply(x, w, out_dtype):
        shapes = mosaic_gpu.shapes_of(x, w)
        config = options.config
        if config is None:
            config = tuning.lookup(shapes, x.dtype)
        elif not config.fits(shapes):  # a shard is smaller than the whole
            config = None
        return mosaic_gpu.multiply(x, w, out_dtype=out_dtype, config=config)

    return multiply


def _why_not(x: jax.Array, w: Operand, name: str, options: Options) -> str | None:
    """Why an implementation cannot do a product, on its machine; ``None`` if it can."""
    if name in ("reference", "xla") or 0 in (*x.shape, *w.words.shape):
        return None
    if any(
        contraction.sharded(a, i)
        for a in (x, *jax.tree.leaves(w))
        for i in range(a.ndim)
    ):
        return "arrays must not be sharded in their types, as on explicit meshes"
    return mosaic_gpu.unsupported(
        x, w, out_dtype=options.out_dtype, config=options.config
    )
