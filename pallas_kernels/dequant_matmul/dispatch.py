"""Which implementation of the product runs, and running it."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from pallas_kernels.dequant_matmul import mosaic_gpu, reference, sharded, tuning, xla
from pallas_kernels.dequant_matmul.config import MAX_ROWS, Config
from pallas_kernels.dequant_matmul.operand import Operand

__all__ = ["IMPLEMENTATIONS", "resolve", "run"]

IMPLEMENTATIONS = ("reference", "xla", "mosaic_gpu", "interpret")
"""Names that `implementation` takes."""


def resolve(
    x: jax.Array, w: Operand, implementation: str | Sequence[str] | None = None
) -> str:
    """The implementation that would run.

    ``None`` takes ``"mosaic_gpu"`` on a GPU of compute capability 9.0, where the kernel
    can do the product and x has at most `MAX_ROWS` rows (beyond, decoding first is
    better), and ``"xla"`` anywhere else: it never fails.

    Args:
      x: ``[..., M, K]``.
      w: ``[..., K, N]``.
      implementation: One name, several to try in order, or ``None``.

    Returns:
      A name of `IMPLEMENTATIONS`.

    Raises:
      ValueError: If a name is unknown.
      NotImplementedError: If the one implementation that was named cannot do it.
      ExceptionGroup: Of such errors, if none of several can.
    """
    if implementation is None:
        few = x.shape[-2] <= MAX_ROWS
        if few and _why_not(x, w, "mosaic_gpu") is None:
            return "mosaic_gpu"
        return "xla"
    names = (implementation,) if isinstance(implementation, str) else implementation
    unknown = [name for name in names if name not in IMPLEMENTATIONS]
    if unknown or not names:
        raise ValueError(
            f"implementation must be of {IMPLEMENTATIONS}, got {implementation!r}"
        )
    errors = []
    for name in names:
        reason = _why_not(x, w, name, named=True)
        if reason is None:
            return name
        errors.append(NotImplementedError(f"{name}: {reason}"))
    if len(errors) == 1:
        raise errors[0]
    raise ExceptionGroup("no implementation can do this product", errors)


def run(
    x: jax.Array,
    w: Operand,
    implementation: str,
    out_dtype: Any,
    decode_dtype: Any,
    precision: Any,
    tile: int | None,
    config: Config | None,
) -> jax.Array:
    """The product by the implementation of a name.

    Args:
      x: ``[M, K]`` or ``[L, M, K]``.
      w: ``[K, N]`` or ``[L, K, N]``.
      implementation: Of `IMPLEMENTATIONS`.
      out_dtype: Dtype of the result.
      decode_dtype: Dtype that decoded weights are rounded to.
      precision: Of dense products.
      tile: Weights that ``"xla"`` decodes at a time, or ``None``.
      config: Settings of the kernel, or ``None``.

    Returns:
      ``[M, N]`` or ``[L, M, N]``.
    """
    if 0 in (*x.shape, *w.words.shape):
        shape = (*x.shape[:-1], w.columns)
        return jnp.zeros(shape, out_dtype)
    if implementation in ("mosaic_gpu", "interpret"):
        interpret = implementation == "interpret"
        if config is None and not interpret:
            config = tuning.lookup(mosaic_gpu.shapes_of(x, w), x.dtype)

        def kernel(x, w):
            return mosaic_gpu.multiply(
                x, w, out_dtype=out_dtype, config=config, interpret=interpret
            )

        return kernel(x, w) if interpret else sharded.partitioned(kernel, x, w)
    options = {"decode_dtype": decode_dtype, "precision": precision}
    if implementation == "reference":
        y = reference.multiply(x, w, **options)
    else:
        y = xla.multiply(x, w, tile=tile, **options)
    return y.astype(out_dtype)


def _why_not(x: jax.Array, w: Operand, name: str, named: bool = False) -> str | None:
    """Why an implementation cannot do a product; ``None`` if it can.

    A kernel that was named may be meant for another machine than this one, as when
    lowering ahead of time, so that only its shapes and dtypes count.
    """
    if name in ("reference", "xla"):
        return None
    if name == "mosaic_gpu" and not named:
        if jax.default_backend() != "gpu":
            return f"the default backend is {jax.default_backend()}"
        capability = str(getattr(jax.devices()[0], "compute_capability", None))
        if capability != "9.0":
            return f"compute capability must be 9.0, got {capability}"
    if 0 in (*x.shape, *w.words.shape):
        return None  # nothing to launch
    return mosaic_gpu.unsupported(x, w)
