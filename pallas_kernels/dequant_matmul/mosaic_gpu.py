"""Products with a packed matrix on Hopper GPUs: a Pallas kernel for Mosaic GPU.

``y = x @ ((codes - zero) * scale)`` is computed transposed, ``y.T = W.T @ x.T``: 64
columns of the matrix are the rows of one instruction of the matrix unit (``wgmma``,
which takes its left operand from registers), and rows of x are its columns. So a
product of one row costs what one of eight does, and the ordinary units only unpack.

Per tile of 512 codes along K and 64 columns, a warpgroup

1. waits for the words, the scales and its part of x in shared memory;
2. reads each row of words, ``[16, 64]``, transposed into registers. Slot i of the
   packed layout is then one shift and mask, the same everywhere, and meets
   ``x[16 * i : 16 * i + 16]``: no code ever changes place;
3. makes a float of a code by putting it in the mantissa of a power of two, from which
   one subtraction takes that power and the zero point. Exact for zero points that are
   integers up to 128 (or of 8 bits, for codes of 8);
4. multiplies, and scales the sum of each group in float32.

Floating zero points are not taken from codes, which 16 bits could not do, but from
sums: a product with ones gives the sum of x of each group beside the other product.

Float32 rows of x are three bfloat16 rows that add up to them. (Numbers above 3.39e38
become infinite in the first; an infinite x with floating zero points gives NaN.)

Nothing depends on which block finishes first: warpgroups and splits of K are added in
their order, so a product is bit-equal from run to run.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from pallas_kernels.dequant_matmul import mantissa
from pallas_kernels.dequant_matmul.config import (
    DEPTH,
    MAX_ROWS,
    TILE,
    Config,
    Shapes,
    heuristic,
)
from pallas_kernels.dequant_matmul.operand import Operand

__all__ = ["multiply", "shapes_of", "unsupported"]

_DTYPES = ("bfloat16", "float16", "float32", "uint8")
_GRID = 65535  # blocks along an axis of a grid that is not the first
_PARTS = 3  # bfloat16 parts of a float32


def multiply(
    x: jax.Array,
    w: Operand,
    *,
    out_dtype: Any = jnp.float32,
    config: Config | None = None,
    interpret: bool = False,
    detect_races: bool = False,
) -> jax.Array:
    """``x @ w`` on a Hopper GPU, or in the interpreter.

    Args:
      x: ``[M, K]`` or ``[L, M, K]``; bfloat16, float16 or float32.
      w: ``[K, N]`` or ``[L, K, N]``.
      out_dtype: Dtype of the result; sums are float32 either way.
      config: Settings; ``None`` takes `heuristic`.
      interpret: Run in the Pallas interpreter, on any machine.
      detect_races: In the interpreter, also look for races.

    Returns:
      ``[M, N]`` or ``[L, M, N]``.

    Raises:
      NotImplementedError: If the kernel cannot do this product; see `unsupported`.
    """
    from pallas_kernels.dequant_matmul import block  # Pallas is slow to import

    reason = unsupported(x, w, out_dtype=out_dtype, config=config)
    if reason is not None:
        raise NotImplementedError(f"mosaic_gpu: {reason}")
    if x.ndim == 2:
        one = multiply(
            x[None],
            jax.tree.map(lambda a: a[None], w),
            out_dtype=out_dtype,
            config=config,
            interpret=interpret,
            detect_races=detect_races,
        )
        return one[0]
    shapes = shapes_of(x, w)
    config = heuristic(shapes) if config is None else config
    split = x.dtype == jnp.float32
    if split:
        x = _split_float32(x)
    x = _pad(x, 2, 4 * DEPTH)  # copies are of whole tiles of shared memory
    if shapes.rows > 8:
        x = _pad(x, 1, 8)
    whole = config.split_k == 1 and not split
    shape = (shapes.stack, config.split_k, x.shape[1], shapes.columns)
    out = jax.ShapeDtypeStruct(shape, out_dtype if whole else jnp.float32)
    scale = jnp.broadcast_to(w.scale, (*w.scale.shape[:-1], w.columns))
    arrays = [x, w.words, scale]
    if w.zero is not None:
        arrays.append(jnp.broadcast_to(w.zero, scale.shape))
    if interpret:  # it knows no copies that reach beyond an array
        arrays, out = _pad_to_blocks(arrays, out, shapes, config)
    arrays.insert(0, mantissa.pattern(x.dtype, w.bits))
    y = block.kernel(
        arrays, out, shapes, config, interpret=interpret, detect_races=detect_races
    )(*arrays)
    y = y[:, :, : shapes.rows, : shapes.columns]
    if whole:
        return y[:, 0]
    y = _in_order(y, 1)
    if split:
        y = _in_order(y.reshape(shapes.stack, _PARTS, -1, shapes.columns), 1)
    return y.astype(out_dtype)


def unsupported(
    x: jax.Array,
    w: Operand,
    *,
    out_dtype: Any = jnp.float32,
    config: Config | None = None,
) -> str | None:
    """Why the kernel cannot do a product; ``None`` if it can.

    Args:
      x: ``[..., M, K]``.
      w: ``[..., K, N]``.
      out_dtype: Dtype of the result.
      config: Settings, or ``None``.
    """
    if x.dtype not in (jnp.bfloat16, jnp.float16, jnp.float32):
        return f"x must be bfloat16, float16 or float32, got {x.dtype}"
    for name, dtype in (
        ("scale", w.scale.dtype),
        ("zero", None if w.zero is None else w.zero.dtype),
        ("the result", out_dtype),
    ):
        if dtype is not None and jnp.dtype(dtype).name not in _DTYPES:
            return f"{name} must be of {_DTYPES}, got {jnp.dtype(dtype)}"
    if w.stride != DEPTH:
        return f"the packed layout must have stride {DEPTH}, got {w.stride}"
    group = w.group_size
    nested = group % TILE == 0 if group > TILE else TILE % group == 0
    if w.groups > 1 and not (nested and group % DEPTH == 0):
        return f"group_size must be 16 to 512 by powers of 2, or k * 512, got {group}"
    if w.columns % 32 or w.columns > 64 * _GRID:
        return f"N must be a multiple of 32 up to {64 * _GRID}, got {w.columns}"
    shapes = shapes_of(x, w)
    if shapes.stack * shapes.row_blocks > _GRID:
        return f"x must have at most {_GRID} blocks of {MAX_ROWS} rows, got {x.shape}"
    if config is not None and not config.fits(shapes):
        return f"{config} does not fit {shapes}"
    return None


def shapes_of(x: jax.Array, w: Operand) -> Shapes:
    """What the settings of the kernel depend on.

    Args:
      x: ``[L, M, K]`` or ``[M, K]``.
      w: ``[L, K, N]`` or ``[K, N]``.
    """
    parts = _PARTS if x.dtype == jnp.float32 else 1
    zero_bytes = 0 if w.zero is None else w.zero.dtype.itemsize
    group_size = w.group_size
    if w.groups == 1:  # whole tiles, so that none has more than one group
        group_size = math.ceil(w.size / TILE) * TILE
    return Shapes(
        stack=x.shape[0] if x.ndim == 3 else 1,
        rows=x.shape[-2] * parts,
        size=w.size,
        columns=w.columns,
        bits=w.bits,
        group_size=group_size,
        scale_bytes=w.scale.dtype.itemsize + zero_bytes,
    )


def _split_float32(x: jax.Array) -> jax.Array:
    """``[L, M, K]`` as three bfloat16 parts ``[L, 3 M, K]`` that add up to it.

    8 bits of the 24 each; `lax.reduce_precision` is a rounding that XLA keeps.
    """
    parts, rest = [], x
    for _ in range(_PARTS):
        part = lax.reduce_precision(rest, exponent_bits=8, mantissa_bits=7)
        parts.append(part.astype(jnp.bfloat16))
        rest = jnp.where(jnp.isfinite(part), rest - part, 0.0)
    return jnp.concatenate(parts, 1)


def _in_order(y: jax.Array, axis: int) -> jax.Array:
    """The sum over a short axis, from its first entry to its last."""
    first, *others = (lax.index_in_dim(y, i, axis, False) for i in range(y.shape[axis]))
    return sum(others, first)


def _pad(a: jax.Array, axis: int, multiple: int) -> jax.Array:
    """`a` with zeros at the end of an axis up to a multiple."""
    short = -a.shape[axis] % multiple
    if not short:
        return a
    widths = [(0, 0)] * a.ndim
    widths[axis] = (0, short)
    return jnp.pad(a, widths)


def _pad_to_blocks(arrays, out, shapes: Shapes, config: Config):
    """The arrays as a GPU's copy engine would deliver them: zeros beyond their end."""
    x, words, *scales = arrays
    depth = TILE * shapes.bits // 32
    rows = shapes.row_blocks * shapes.padded_rows
    x = _pad(_pad(x, 1, rows), 2, TILE)
    words = _pad(_pad(words, 1, depth), 2, config.block_columns)
    scales = [
        _pad(jnp.pad(a, ((0, 0), (0, TILE // 16), (0, 0))), 2, config.block_columns)
        for a in scales
    ]
    columns = math.ceil(shapes.columns / config.block_columns) * config.block_columns
    shape = (*out.shape[:2], rows, columns)
    return [x, words, *scales], jax.ShapeDtypeStruct(shape, out.dtype)
