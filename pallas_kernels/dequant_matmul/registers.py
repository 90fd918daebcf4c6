"""Register arrays of a warpgroup: what the kernel does between memory and matrix unit.

Two versions of the same steps. `COMPILED` states the layout of every array, as the
compiler wants. `INTERPRETED` is for the Pallas interpreter, which has no layouts and,
in JAX 0.10, no matrix unit whose left operand is in registers.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from pallas_kernels import compat

__all__ = ["COMPILED", "INTERPRETED", "Registers"]


class Registers(NamedTuple):
    """The steps that depend on where the kernel runs.

    Attributes:
      transposed: A reference ``[a, b]`` read as ``[b, a]``.
      row: A reference ``[64]`` read as one value per row of a ``[64, n]`` array.
      along: A row of values as ``[64, n]``, for 16-bit or 32-bit ones.
      zeros: ``[64, n]`` zeros, float32.
      products: ``sum(a @ x.T)``, float32 ``[64, n]``, of pairs that a function of no
        arguments yields: a in parts side by side and a reference x ``[n, k]``.
      load: A reference ``[64, n]``, float32.
      store_transposed: Writes ``[64, n]`` to a reference ``[n, 64]``.
    """

    transposed: Callable[[Any], jax.Array]
    row: Callable[[Any], jax.Array]
    along: Callable[[jax.Array, int], jax.Array]
    zeros: Callable[[int], jax.Array]
    products: Callable[[Any, int], jax.Array]
    load: Callable[[Any], jax.Array]
    store_transposed: Callable[[Any, jax.Array], None]


def _along(row: jax.Array, n: int) -> jax.Array:
    return lax.broadcast_in_dim(row, (row.shape[0], n), (0,))


def _transpose(ref):
    return ref.transpose((1, 0)) if hasattr(ref, "transpose") else ref.T


def _compiled() -> Registers:
    layout = plgpu.Layout.WGMMA

    def transposed(ref):
        across = plgpu.layout_cast(_transpose(ref)[...], plgpu.Layout.WGMMA_TRANSPOSED)
        return plgpu.layout_cast(across, layout)

    def products(pairs, n):
        def run(total):
            for parts, x in pairs():
                parts = [plgpu.layout_cast(a, layout) for a in parts]
                plgpu.wgmma(total, compat.concatenate(parts), _transpose(x))
            return total[...]

        return pl.run_scoped(run, plgpu.WGMMAAccumulatorRef((64, n), jnp.float32))

    def store_transposed(ref, value):
        value = value.astype(ref.dtype)
        _transpose(ref)[...] = plgpu.layout_cast(value, plgpu.Layout.WGMMA_TRANSPOSED)

    return Registers(
        transposed=transposed,
        row=lambda ref: compat.load(ref, layout.reduce(1)),
        along=lambda row, n: plgpu.layout_cast(_along(row, n), layout),
        zeros=lambda n: plgpu.layout_cast(jnp.zeros((64, n), jnp.float32), layout),
        products=products,
        load=lambda ref: compat.load(ref, layout),
        store_transposed=store_transposed,
    )


def _interpreted() -> Registers:
    def products(pairs, n):
        total = jnp.zeros((64, n), jnp.float32)
        for parts, x in pairs():
            a = jnp.concatenate(parts, 1)
            total += jnp.matmul(a, x[...].T, preferred_element_type=jnp.float32)
        return total

    def store_transposed(ref, value):
        ref[...] = value.T.astype(ref.dtype)

    return Registers(
        transposed=lambda ref: ref[...].T,
        row=lambda ref: ref[...],
        along=_along,
        zeros=lambda n: jnp.zeros((64, n), jnp.float32),
        products=products,
        load=lambda ref: ref[...],
        store_transposed=store_transposed,
    )


COMPILED = _compiled()
INTERPRETED = _interpreted()
