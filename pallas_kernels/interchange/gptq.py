"""The layout of GPTQ files: 2, 3, 4 or 8 bits, packed along the inputs, in order.

Codes are a dense stream (`stream`) down the inputs, zero points one along the outputs.
Of 3 bits, 32 codes are in three words, codes 10 and 21 straddling them::

    bit      31 30 29 28 27 26         ...         5  4  3  2  1  0
    word 0   10 10  9  9  9  8                     1  1  1  0  0  0
    word 1   21 20 20 20 19 19                    12 12 11 11 11 10
    word 2   31 31 31 30 30 30                    23 22 22 22 21 21

Files say in ``checkpoint_format`` how zero points are stored: ``"gptq"`` (also called
v1, and meant where nothing is said) stores them less 1, modulo ``2^bits``;
``"gptq_v2"`` as they are.

Note:
  Better not write zero points of 0 as ``"gptq"``. They are exact here and in all
  programs that take zero points one by one, modulo ``2^bits``; others differ. AutoGPTQ
  writes the 32 bits of -1 over the neighbors in the word, and some of its modules read
  ``2^bits`` where it is 0 that was stored; GPTQModel subtracts from whole words at 2, 4
  and 8 bits, which borrows from the neighbor. In ``"gptq_v2"`` there is no such case.

  Of 3 bits, ``"gptq"`` files that GPTQModel wrote before its pull request 2763 have
  other zero points than this layout says: it subtracted constants from whole words, the
  one of word 2 from word 0. Other programs have written zero points as they are, but
  called it ``"gptq"``. If such a file is symmetric, ``codes._replace(zero=None)`` is
  right whatever it holds.

  GPTQModel's ``"gptq_p"``, with codes of 3, 5, 6 and 7 bits in bit planes, is another
  layout.

References:
  AutoGPTQ, github AutoGPTQ/AutoGPTQ 0.7.1: qlinear_cuda.py and qlinear_cuda_old.py of
  auto_gptq/nn_modules/qlinear. GPTQModel, github ModelCloud/GPTQModel 7.7.0:
  gptqmodel/nn_modules/qlinear/__init__.py, gptqmodel/utils/model.py and
  model_dequant.py; zero points of 3 bits: pull request 2763.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

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

__all__ = ["CHECKPOINT_FORMATS", "GPTQ", "from_gptq", "to_gptq"]

CHECKPOINT_FORMATS = ("gptq", "gptq_v2")
"""Ways in which files store zero points."""

_WIDTHS = (2, 3, 4, 8)
_RUN = 32  # sizes must be multiples of it, so that streams end with a word


class GPTQ(NamedTuple):
    """A linear layer as AutoGPTQ and GPTQModel store it; names as in their files.

    Attributes:
      qweight: int32 ``[K * bits / 32, N]``.
      qzeros: int32 ``[G, N * bits / 32]``.
      scales: float16 ``[G, N]``.
      g_idx: int32 ``[K]``, the group of each input, or ``None`` for ``k // (K / G)``.
    """

    qweight: jax.Array
    qzeros: jax.Array
    scales: jax.Array
    g_idx: jax.Array | None = None


def from_gptq(weight: GPTQ, *, bits: int, checkpoint_format: str = "gptq") -> Codes:
    """Reads the layout of GPTQ files.

    Args:
      weight: Words int32 or uint32; `scales` float16, bfloat16 or float32; `g_idx` is
        read on the host, so under `jax.jit` close over it.
      bits: Width of a code: 2, 3, 4 or 8.
      checkpoint_format: ``"gptq"`` or ``"gptq_v2"``, from the file's configuration.

    Returns:
      The codes, groups contiguous; `zero` always an array; `order` where the weight was
      quantized in another order than that of its inputs (``desc_act``), else ``None``.

    Raises:
      TypeError: If words or scales are of another dtype, or `g_idx` is traced.
      ValueError: If `bits` or `checkpoint_format` is none of those, the shapes do not
        fit each other, or the groups are not of one size.

    Examples:
      >>> words = jnp.full((4, 32), 0x76543210, jnp.uint32)
      >>> zeros = jnp.full((2, 4), 0x77777777, jnp.uint32)
      >>> g_idx = jnp.arange(32, dtype=jnp.int32) % 2
      >>> packed = GPTQ(words, zeros, jnp.ones((2, 32), jnp.float16), g_idx)
      >>> codes = from_gptq(packed, bits=4)
      >>> print(codes.codes[:5, 0], codes.zero[0, 0], codes.order[:5])
      [0 2 4 6 0] 8 [0 2 4 6 8]
    """
    _check(bits, checkpoint_format)
    qweight = as_words(weight.qweight, "qweight")
    rows, columns = qweight.shape
    if rows % bits:
        raise ValueError(
            f"qweight of shape {qweight.shape} has not {bits} words for every {_RUN} "
            "inputs"
        )
    size = rows // bits * _RUN
    scale = as_scale(weight.scales, "scales", "the codes", (size, columns))
    expected = (scale.shape[0], stream.length(columns, bits=bits))
    qzeros = as_words(weight.qzeros, "qzeros", expected)
    codes = stream.unpack(qweight, bits=bits, axis=0, size=size)
    zero = stream.unpack(qzeros, bits=bits, axis=1, size=columns)
    if checkpoint_format == "gptq":
        zero = (zero + 1) & (2**bits - 1)
    codes, order = apply_order(codes, weight.g_idx, scale.shape[0])
    return Codes(codes, scale, zero, order)


def to_gptq(weight: Codes, *, bits: int, checkpoint_format: str = "gptq") -> GPTQ:
    """Writes the layout of GPTQ files.

    Args:
      weight: Codes, K and N multiples of 32, scales float16.
      bits: Width of a code: 2, 3, 4 or 8.
      checkpoint_format: ``"gptq"`` or ``"gptq_v2"``; the file's configuration must say
        the latter.

    Returns:
      The words, int32; the scales unchanged; `g_idx` always an array. Inputs are in
      their own order again.

    Raises:
      TypeError: If `codes` or `zero` is not uint8, or `scale` not float16: rounding it
        is left to the caller.
      ValueError: If `bits` or `checkpoint_format` is none of those, the shapes do not
        fit each other, or K or N is not a multiple of 32.

    Examples:
      >>> codes = jnp.repeat(jnp.arange(32, dtype=jnp.uint8)[:, None] % 8, 32, 1)
      >>> packed = to_gptq(Codes(codes, jnp.ones((1, 32), jnp.float16)), bits=3)
      >>> [f"{int(w):032b}" for w in packed.qweight[:2, 0].view(jnp.uint32)]
      ['10001000111110101100011010001000', '11000110100010001111101011000110']
      >>> f"{int(packed.qzeros[0, 0].view(jnp.uint32)):o}"  # 4 less 1
      '33333333333'
    """
    _check(bits, checkpoint_format)
    weight = as_codes(weight, bits)
    scale, zero = weight.scale, weight.zero
    size, columns = weight.codes.shape
    if scale.dtype != jnp.float16:
        raise TypeError(f"scale must be float16 in this layout, got {scale.dtype}")
    if size % _RUN or columns % _RUN:
        raise ValueError(
            f"K and N must be multiples of {_RUN}, got codes of shape "
            f"{weight.codes.shape}"
        )
    if zero is None:
        zero = jnp.full(scale.shape, 2 ** (bits - 1), jnp.uint8)
    if checkpoint_format == "gptq":
        zero = zero - 1  # modulo 2^bits, of which only the low bits are kept
    codes, rows = restore_order(weight)
    return GPTQ(
        qweight=signed_words(stream.pack(codes, bits=bits, axis=0)),
        qzeros=signed_words(stream.pack(zero, bits=bits, axis=1)),
        scales=scale,
        g_idx=group_index(rows, size, scale.shape[0]),
    )


def _check(bits: int, checkpoint_format: str) -> None:
    if bits not in _WIDTHS:
        raise ValueError(f"bits must be one of {_WIDTHS}, got {bits}")
    if checkpoint_format not in CHECKPOINT_FORMATS:
        raise ValueError(
            f"checkpoint_format must be one of {CHECKPOINT_FORMATS}, got "
            f"{checkpoint_format!r}"
        )
