"""The product with a packed matrix as one would write it down."""

from typing import Any

import jax
import jax.numpy as jnp

from pallas_kernels.dequant_matmul.operand import Operand

__all__ = ["multiply"]


def multiply(
    x: jax.Array, w: Operand, *, decode_dtype: Any = jnp.float32, precision: Any = None
) -> jax.Array:
    """``x @ decode(w)``, the whole matrix decoded first.

    Args:
      x: ``[..., M, K]``, floating.
      w: ``[..., K, N]``.
      decode_dtype: Dtype that the decoded weights are rounded to.
      precision: As in `jax.numpy.matmul`.

    Returns:
      ``[..., M, N]``, float32.
    """
    dense = w.decode(decode_dtype)
    if x.dtype != dense.dtype:
        x, dense = x.astype(jnp.float32), dense.astype(jnp.float32)
    return jnp.matmul(x, dense, precision=precision, preferred_element_type=jnp.float32)
