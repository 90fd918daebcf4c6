"""What one block of the Mosaic GPU kernel does; `mosaic_gpu` says why."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from pallas_kernels import compat, threefry
from pallas_kernels.draw_matmul import gaussian
from pallas_kernels.draw_matmul.config import LANES, Config

__all__ = ["kernel"]

_MATRICES = ("mean", "std")


def kernel(
    arrays: Sequence[jax.Array],
    out: tuple[int, int, int, int],
    config: Config,
    *,
    interpret: bool,
    races: bool,
) -> Callable[..., jax.Array]:
    """The kernel for arrays of given shapes and dtypes, all of whole blocks.

    Args:
      arrays: Words of the columns' keys ``[2, G, threads, lanes]``, ``x [G, K]``,
        ``mean [K, lanes]`` and ``std [K, lanes]``.
      out: Shape of the result, ``[G, split_k, threads, lanes]``.
      config: How the product is cut.
      interpret: Whether to run in the Pallas interpreter.
      races: Whether the interpreter looks for races.

    Returns:
      A function of the arrays that gives the result, float32.
    """
    _, x, *matrices = arrays
    branches, splits, threads, lanes = out
    tile = (config.stages, config.depth, LANES)
    parameters = compat.interpret_params(detect_races=races)
    return plgpu.kernel(
        functools.partial(_body, config, x.shape[1] // config.depth, interpret),
        out_type=jax.ShapeDtypeStruct(out, jnp.float32),
        scratch_types={
            "tiles": {
                name: plgpu.SMEM(tile, a.dtype)
                for name, a in zip(_MATRICES, matrices, strict=True)
            },
            "arrived": plgpu.Barrier(
                num_arrivals=len(_MATRICES), num_barriers=config.stages
            ),
        },
        grid=(branches * threads // config.voters, lanes // LANES, splits),
        grid_names=("voters", "lanes", "split"),
        compiler_params=plgpu.CompilerParams(
            approx_math=True, lowering_semantics=plgpu.LoweringSemantics.Lane
        ),
        interpret=parameters if interpret else None,
    )


def _body(
    config: Config,
    count: int,
    interpret: bool,
    keys,
    x,
    mean,
    std,
    out,
    *,
    tiles,
    arrived,
):
    """One block: some voters, 128 lanes, and its share of the tiles along K."""
    sources = dict(zip(_MATRICES, (mean, std), strict=True))
    place, split = lax.axis_index("voters"), lax.axis_index("split")
    per_branch = jnp.int32(out.shape[2] // config.voters)
    branch, voter = place // per_branch, lax.rem(place, per_branch) * config.voters
    lanes = pl.ds(lax.axis_index("lanes") * LANES, LANES)
    first = split * count // config.split_k
    steps = (split + 1) * count // config.split_k - first

    def fetch(step, slot):
        rows = pl.ds((first + step) * config.depth, config.depth)
        for name, source in sources.items():
            plgpu.copy_gmem_to_smem(
                source.at[rows, lanes], tiles[name].at[slot], arrived.at[slot]
            )

    for step in range(config.stages):
        pl.when(step < steps)(functools.partial(fetch, step, step))

    row_keys = [
        (keys[0, branch, voter + i, lanes], keys[1, branch, voter + i, lanes])
        for i in range(config.voters)
    ]

    def add_row(step, slot, row, sums):
        index = (first + step) * config.depth + row
        value = x[branch, index]
        center, width = (
            tiles[name][slot, row].astype(jnp.float32) for name in _MATRICES
        )
        beta = width * (value * gaussian.SCALE)
        eta, *totals = sums
        totals = [
            total + beta * _noise(key, index)
            for total, key in zip(totals, row_keys, strict=True)
        ]
        return eta + center * value, *totals

    def add_tile(step, sums):
        slot = lax.rem(step, jnp.int32(config.stages))
        plgpu.barrier_wait(arrived.at[slot])
        of_row = functools.partial(add_row, step, slot)
        sums = lax.fori_loop(0, config.depth, of_row, sums)
        plgpu.commit_smem()  # what was read may be overwritten
        ahead = step + config.stages
        pl.when(ahead < steps)(functools.partial(fetch, ahead, slot))
        return sums

    nothing = (_zeros(interpret),) * (1 + config.voters)
    eta, *totals = lax.fori_loop(0, steps, add_tile, nothing)
    for i, total in enumerate(totals):
        out[branch, split, voter + i, lanes] = eta + total


def _noise(key, index) -> jax.Array:
    """Entry `index` of the noise of every lane's column, over `gaussian.SCALE`."""
    word = threefry.bits(key, index.astype(jnp.uint32))
    return gaussian.erf_inv(gaussian.uniform(word))


def _zeros(interpret: bool) -> jax.Array:
    """A register per thread; the compiler wants a layout, the interpreter has none."""
    zeros = jnp.zeros((LANES,), jnp.float32)
    if interpret:
        return zeros
    return plgpu.layout_cast(zeros, plgpu.Layout.WG_STRIDED((LANES,), vec_size=1))
