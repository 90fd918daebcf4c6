"""The "pack-quantized" layout of compressed-tensors: outputs in rows, packed along K.

Codes and zero points are signed there; both are stored after adding ``2^(bits - 1)``,
which makes them the unsigned ones used here. Codes are a stream (`stream`) along the
inputs, zero points one down the outputs; both may end within a word, whose other bits
are 0. Streams are dense from compressed-tensors 0.18.0 on. Before they were padded,
which is the same for 2, 4 and 8 bits.

References:
  compressed-tensors, github vllm-project/compressed-tensors,
  src/compressed_tensors/compressors/pack_quantized/{base,helpers}.py, versions 0.17.1
  (padded) and 0.20.0 (dense; changed by pull request 732); groups by ``weight_g_idx``,
  where -1 stands for "not set" and which 0.19.0 dropped:
  src/compressed_tensors/quantization/lifecycle/forward.py of 0.18.0.
"""

from typing import Any, NamedTuple

import jax
import numpy as np
from jax import core

from pallas_kernels.interchange import stream
from pallas_kernels.interchange.codes import (
    Codes,
    apply_order,
    as_codes,
    as_scale,
    as_words,
    group_index,
    restore_order,
    signed_words,
)

__all__ = ["CompressedTensors", "from_compressed_tensors", "to_compressed_tensors"]


class CompressedTensors(NamedTuple):
    """A linear layer as compressed-tensors stores it; names as in its files.

    ``words(n)`` below is ``ceil(n * bits / 32)``, or ``ceil(n / (32 // bits))`` padded.

    Attributes:
      weight_packed: int32 ``[N, words(K)]``.
      weight_scale: Floating ``[N, G]``; G = 1 for one scale per channel.
      weight_shape: int64 ``[2]``: N and K, a NumPy array.
      weight_zero_point: int32 ``[words(N), G]``, or ``None`` if symmetric.
      weight_g_idx: int32 ``[K]``, the group of each input, or ``None``.
    """

    weight_packed: jax.Array
    weight_scale: jax.Array
    weight_shape: np.ndarray
    weight_zero_point: jax.Array | None = None
    weight_g_idx: jax.Array | None = None


def from_compressed_tensors(
    weight: CompressedTensors, *, bits: int, padded: bool = False
) -> Codes:
    """Reads the "pack-quantized" layout of compressed-tensors.

    Args:
      weight: Words int32 or uint32. `weight_shape` and `weight_g_idx` are read on the
        host, so under `jax.jit` close over them.
      bits: Width of a code, 2 to 8.
      padded: Whether the file was written before compressed-tensors 0.18.0. It matters
        for 3, 5, 6 and 7 bits, and is not told by the arrays where both are of one
        length, as those of few inputs are.

    Returns:
      The codes, groups contiguous; `zero` is ``None`` if there is no
      `weight_zero_point`; `order` where groups are not of neighboring inputs.

    Raises:
      TypeError: If words or scales are of another dtype, or one of the arrays read on
        the host is traced.
      ValueError: If `bits` is out of range, the shapes do not fit each other, or the
        groups are not of one size.

    Examples:
      >>> words = np.array([[0x76543210]], np.int32)
      >>> scale, shape = np.ones((1, 2), np.float32), np.array([1, 6])
      >>> packed = CompressedTensors(words, scale, shape)
      >>> print(from_compressed_tensors(packed, bits=4).codes.T)
      [[0 1 2 3 4 5]]
    """
    _check(bits)
    outputs, inputs = _shape(weight.weight_shape)
    scale = as_scale(
        weight.weight_scale, "weight_scale", "a weight", (outputs, inputs), axis=1
    )
    words = as_words(weight.weight_packed, "weight_packed")
    here, other = (
        (outputs, stream.length(inputs, bits=bits, padded=p))
        for p in (padded, not padded)
    )
    if words.shape != here:
        hint = f"; padded={not padded} would fit" if words.shape == other else ""
        raise ValueError(
            f"weight_packed has shape {words.shape}, expected {here}{hint}"
        )
    codes = stream.unpack(words, bits=bits, axis=1, size=inputs, padded=padded).T
    groups, zero = scale.shape[1], weight.weight_zero_point
    if zero is not None:
        rows = stream.length(outputs, bits=bits, padded=padded)
        words = as_words(zero, "weight_zero_point", (rows, groups))
        zero = stream.unpack(words, bits=bits, axis=0, size=outputs, padded=padded).T
    g_idx = weight.weight_g_idx
    if g_idx is not None and not isinstance(g_idx, core.Tracer):
        g_idx = None if (np.asarray(g_idx) == -1).any() else g_idx  # -1: not set
    codes, order = apply_order(codes, g_idx, groups)
    return Codes(codes, scale.T, zero, order)


def to_compressed_tensors(
    weight: Codes, *, bits: int, padded: bool = False
) -> CompressedTensors:
    """Writes the "pack-quantized" layout of compressed-tensors.

    Args:
      weight: Codes of any K and N; scales float16, bfloat16 or float32.
      bits: Width of a code, 2 to 8.
      padded: Whether to write for compressed-tensors before 0.18.0. It matters for 3,
        5, 6 and 7 bits.

    Returns:
      The words, int32; the scales of the same dtype; `weight_shape` a NumPy array of
      int64 (which becomes int32 if it is returned from `jax.jit`);
      `weight_zero_point` only if there are zero points, `weight_g_idx` only if there is
      an order, which compressed-tensors reads up to 0.18. Inputs are in their own order
      again.

    Raises:
      TypeError: If `codes` or `zero` is not uint8, or `scale` of another dtype.
      ValueError: If `bits` is out of range or the shapes do not fit each other.

    Examples:
      >>> codes = np.arange(12, dtype=np.uint8)[:, None] % 8
      >>> weight = Codes(codes, np.ones((1, 1), np.float32))
      >>> for padded in (False, True):
      ...     packed = to_compressed_tensors(weight, bits=3, padded=padded)
      ...     print([f"{int(w):011o}" for w in packed.weight_packed[0].view(np.uint32)])
      ['21076543210', '00000000006']
      ['01076543210', '00000000032']
    """
    _check(bits)
    weight = as_codes(weight, bits)
    inputs, outputs = weight.codes.shape
    codes, rows = restore_order(weight)

    def write(x, axis):
        return signed_words(stream.pack(x, bits=bits, axis=axis, padded=padded))

    return CompressedTensors(
        weight_packed=write(codes.T, 1),
        weight_scale=weight.scale.T,
        weight_shape=np.array([outputs, inputs], np.int64),
        weight_zero_point=None if weight.zero is None else write(weight.zero.T, 0),
        weight_g_idx=(
            None if rows is None else group_index(rows, inputs, weight.scale.shape[0])
        ),
    )


def _shape(weight_shape: Any) -> tuple[int, int]:
    """N and K."""
    if isinstance(weight_shape, core.Tracer):
        raise TypeError(
            "weight_shape must be an array that can be read, not a traced one: it is "
            "the shape of the result. Close over it"
        )
    shape = np.asarray(weight_shape)
    if shape.shape != (2,) or not np.issubdtype(shape.dtype, np.integer):
        raise ValueError(f"weight_shape must be the two sizes [N, K], got {shape}")
    return int(shape[0]), int(shape[1])


def _check(bits: int) -> None:
    if bits not in range(2, 9):
        raise ValueError(f"bits must be 2 to 8, got {bits}")
