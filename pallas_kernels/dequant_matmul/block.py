"""What one block of the Mosaic GPU kernel does; `mosaic_gpu` says why."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from pallas_kernels import compat
from pallas_kernels.dequant_matmul.config import DEPTH, TILE, Config, Shapes
from pallas_kernels.dequant_matmul.mantissa import mantissa_for, raised_codes
from pallas_kernels.dequant_matmul.registers import (
    COMPILED,
    INTERPRETED,
    Registers,
)

__all__ = ["kernel"]

_COLUMNS = 64  # of the matrix, per instruction of the matrix unit

_COPY = 128  # bytes of the smallest copy to shared memory

_ARRAYS = ("pattern", "x", "words", "scale", "zero")


def kernel(
    arrays: Sequence[jax.Array],
    out: jax.ShapeDtypeStruct,
    shapes: Shapes,
    config: Config,
    *,
    interpret: bool,
    detect_races: bool,
) -> Callable[..., jax.Array]:
    """The kernel for arrays of given shapes and dtypes.

    Args:
      arrays: `pattern` of the dtype of x, ``x [L, M, K]``, ``words [L, Kw, N]``,
        ``scale [L, G, N]`` and, if there are zero points, ``zero [L, G, N]``.
      out: The result ``[L, split_k, M, N]``.
      shapes: The product.
      config: How it is cut.
      interpret: Whether to run in the Pallas interpreter, where arrays must be whole
        blocks.
      detect_races: Whether the interpreter looks for races.

    Returns:
      A function of the arrays that gives the result.
    """
    _, x, words, *scales = arrays
    rows, columns = shapes.padded_rows, config.block_columns
    slots, groups = config.warpgroups * config.stages, shapes.groups_per_tile
    blocks = {
        "x": _shared(
            (slots, rows, TILE), x.dtype, tiling=(8, _slots_at_once(shapes) * DEPTH)
        ),
        "words": _shared((slots, _depth(shapes), columns), words.dtype, tiling=(8, 32)),
    }
    for name, a in zip(_ARRAYS[3:], scales, strict=False):
        least = math.ceil(_COPY / (columns * a.dtype.itemsize))
        blocks[name] = _shared((slots, max(groups, least), columns), a.dtype)
    scratch = {
        "blocks": blocks,
        "result": _shared((rows, columns), out.dtype, tiling=(8, 32)),
        "arrived": plgpu.Barrier(num_arrivals=len(blocks), num_barriers=slots),
    }
    if config.warpgroups > 1:
        shape = (config.warpgroups, columns, rows)
        scratch["sums"] = _shared(shape, jnp.float32)
        scratch["added"] = plgpu.Barrier(num_arrivals=config.warpgroups)
    parameters = compat.interpret_params(detect_races=detect_races)
    return plgpu.kernel(
        functools.partial(
            _body, shapes, config, INTERPRETED if interpret else COMPILED
        ),
        out_type=out,
        scratch_types=scratch,
        grid=(
            out.shape[0] * shapes.row_blocks,
            math.ceil(out.shape[3] / columns),
            config.split_k,
        ),
        grid_names=("rows", "columns", "split"),
        num_threads=config.warpgroups,
        thread_name="warpgroup",
        compiler_params=plgpu.CompilerParams(
            lowering_semantics=plgpu.LoweringSemantics.Lane
        ),
        interpret=parameters if interpret else None,
    )


def _shared(shape, dtype, tiling=None):
    """Shared memory; tiled, its rows of up to 128 bytes are swizzled over the banks."""
    if tiling is None:
        return plgpu.SMEM(shape, dtype)
    swizzle = tiling[1] * jnp.dtype(dtype).itemsize
    transforms = plgpu.TilingTransform(tiling), plgpu.SwizzleTransform(swizzle)
    return plgpu.SMEM(shape, dtype, transforms=transforms)


def _slots_at_once(shapes: Shapes) -> int:
    """Slots whose codes are multiplied by one call: x then lies 128 bytes deep."""
    return min(4, 32 // shapes.groups_per_tile)


def _depth(shapes: Shapes) -> int:
    """Rows of words in a tile."""
    return TILE * shapes.bits // 32


def _body(
    shapes: Shapes,
    config: Config,
    registers: Registers,
    *refs,
    blocks,
    result,
    arrived,
    sums=None,
    added=None,
):
    """One block: its share of K of its columns, or all of K."""
    *arrays, out = refs
    sources: dict[str, Any] = dict(zip(_ARRAYS, arrays, strict=False))
    row_block, split = lax.axis_index("rows"), lax.axis_index("split")
    layer = row_block // shapes.row_blocks
    rows = lax.rem(row_block, jnp.int32(shapes.row_blocks)) * shapes.padded_rows
    rows = pl.ds(rows, shapes.padded_rows)
    warpgroup = lax.axis_index("warpgroup")
    columns = pl.ds(
        lax.axis_index("columns") * config.block_columns, config.block_columns
    )
    share = split * config.warpgroups + warpgroup
    shares = config.split_k * config.warpgroups
    first = share * shapes.tiles // shares
    tiles = (share + 1) * shapes.tiles // shares - first

    def fetch(step, slot):
        tile = first + step
        group = tile * TILE // shapes.group_size
        parts = {
            "x": (rows, pl.ds(tile * TILE, TILE)),
            "words": (pl.ds(tile * _depth(shapes), _depth(shapes)), columns),
            "scale": (pl.ds(group, blocks["scale"].shape[1]), columns),
        }
        if "zero" in blocks:
            parts["zero"] = (pl.ds(group, blocks["zero"].shape[1]), columns)
        for name, part in parts.items():
            source = sources[name].at[(layer, *part)]
            plgpu.copy_gmem_to_smem(source, blocks[name].at[slot], arrived.at[slot])

    def slot_of(step):
        return warpgroup * config.stages + lax.rem(step, jnp.int32(config.stages))

    for step in range(config.stages):
        pl.when(step < tiles)(functools.partial(fetch, step, slot_of(jnp.int32(step))))

    raising = sources["pattern"][0]

    def add_tile(step, totals):
        slot = slot_of(step)
        plgpu.barrier_wait(arrived.at[slot])
        here = {name: block.at[slot] for name, block in blocks.items()}
        totals = tuple(
            total + _product(shapes, registers, raising, here, i * _COLUMNS)
            for i, total in enumerate(totals)
        )
        plgpu.commit_smem()  # what was read may be overwritten
        ahead = step + config.stages
        pl.when(ahead < tiles)(functools.partial(fetch, ahead, slot))
        return totals

    nothing = registers.zeros(shapes.padded_rows)
    totals = (nothing,) * (config.block_columns // _COLUMNS)
    totals = lax.fori_loop(0, tiles, add_tile, totals)
    _add_up(config, registers, totals, warpgroup, sums, result, added)

    @pl.when(warpgroup == 0)
    def _():
        plgpu.commit_smem()
        plgpu.copy_smem_to_gmem(result, out.at[layer, split, rows, columns])
        plgpu.wait_smem_to_gmem(0)


def _product(
    shapes: Shapes, registers: Registers, raising, blocks, column: int
) -> jax.Array:
    """One tile times 64 of its columns, ``[64, rows]``, float32."""
    columns, x = pl.ds(column, _COLUMNS), blocks["x"]
    words = [
        registers.transposed(blocks["words"].at[pl.ds(b * DEPTH, DEPTH), columns])
        for b in range(shapes.bits)
    ]
    codes = raised_codes(words, mantissa_for(x.dtype, shapes.bits), raising)
    slots, run = 32 // shapes.groups_per_tile, _slots_at_once(shapes)
    products = []
    for group in range(shapes.groups_per_tile):
        scale = registers.row(blocks["scale"].at[group, columns]).astype(jnp.float32)
        zero = None
        if "zero" in blocks:
            zero = registers.row(blocks["zero"].at[group, columns])
        first = group * slots
        runs = [range(i, i + run) for i in range(first, first + slots, run)]
        product = _group(shapes.bits, registers, codes, runs, x, zero)
        products.append(product * registers.along(scale, x.shape[0]))
    return sum(products[1:], products[0])


def _group(bits, registers: Registers, codes, runs, x, zero) -> jax.Array:
    """Sum over the slots of a group of ``(codes - zero) * x``, ``[64, rows]``."""
    rows = x.shape[0]
    parts = [x.at[:, pl.ds(run[0] * DEPTH, len(run) * DEPTH)] for run in runs]

    def products(offset):
        weight = _weights(bits, registers, codes, x.dtype, offset)
        return registers.products(
            lambda: (
                ([weight(slot) for slot in run], part)
                for run, part in zip(runs, parts, strict=True)
            ),
            rows,
        )

    if zero is None:
        return products(2.0 ** (bits - 1))
    zero_row = zero.astype(jnp.float32)
    if not jnp.issubdtype(zero.dtype, jnp.floating):
        return products(zero_row)
    ones = jnp.ones((_COLUMNS, len(runs[0]) * DEPTH), x.dtype)
    x_sum = registers.products(lambda: (([ones], part) for part in parts), rows)
    return products(0.0) - x_sum * registers.along(zero_row, rows)


def _weights(bits, registers: Registers, codes, dtype, offset) -> Callable:
    """A function from a slot to its ``codes - offset``, ``[64, 16]``.

    One multiply-add brings a code down and takes the power and the offset off.
    """
    kind = mantissa_for(dtype, bits)
    taken = {}
    for lift in sorted({lift for _, lift in codes}):
        value = kind.power / 2**lift + offset
        if isinstance(value, jax.Array):  # a row of zero points
            taken[lift] = registers.along(value.astype(kind.dtype), DEPTH)
        else:
            taken[lift] = kind.dtype.type(value)

    def weight(slot: int) -> jax.Array:
        code, lift = codes[slot]
        if lift:
            code = code * kind.dtype.type(2.0**-lift)
        return (code - taken[lift]).astype(dtype)

    return weight


def _add_up(
    config: Config, registers: Registers, totals, warpgroup, sums, result, added
):
    """Leaves the sum of all warpgroups in `result`, ``[rows, columns]``."""
    pieces = [pl.ds(i * _COLUMNS, _COLUMNS) for i in range(len(totals))]
    if config.warpgroups == 1:
        for columns, total in zip(pieces, totals, strict=True):
            registers.store_transposed(result.at[:, columns], total)
        return
    for columns, total in zip(pieces, totals, strict=True):
        sums[warpgroup, columns, :] = total
    plgpu.barrier_arrive(added)

    @pl.when(warpgroup == 0)
    def _():
        plgpu.barrier_wait(added)
        for columns in pieces:
            total = registers.load(sums.at[0, columns])
            for i in range(1, config.warpgroups):
                total = total + registers.load(sums.at[i, columns])
            registers.store_transposed(result.at[:, columns], total)
