"""What differs between JAX versions in Pallas for Mosaic GPU, in one place."""

import inspect
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.mosaic import gpu as mosaic_gpu
from jax.experimental.pallas import mosaic_gpu as plgpu

__all__ = ["concatenate", "interpret_params", "load"]


def concatenate(arrays: Sequence[jax.Array]) -> jax.Array:
    """Arrays ``[64, k]`` of 16-bit floats side by side, in registers, for `wgmma`.

    Args:
      arrays: At least one, all of the layout `plgpu.Layout.WGMMA`.

    Returns:
      ``[64, sum of k]``.
    """
    if len(arrays) == 1 or hasattr(mosaic_gpu, "concatenate"):  # since JAX 0.12
        return arrays[0] if len(arrays) == 1 else jnp.concatenate(arrays, 1)
    layout = plgpu.Layout.WGMMA
    shape = (arrays[0].shape[0], sum(a.shape[1] for a in arrays))

    @plgpu.inline_mgpu(
        arg_types=(layout,) * len(arrays),
        return_type=plgpu.ShapeDtypeStruct(shape, arrays[0].dtype, layout),
    )
    def join(_, *parts):
        return type(parts[0])(
            _registers=np.concatenate([p.registers for p in parts], 1),
            _layout=parts[0].layout,
            _is_signed=None,
        )

    return join(*arrays)


def interpret_params(*, detect_races: bool = False) -> Any:
    """Settings that make a kernel run in the Mosaic GPU interpreter.

    Args:
      detect_races: Also look for accesses to shared memory that no barrier orders.

    Returns:
      What `plgpu.kernel` takes as ``interpret``.
    """
    params = getattr(plgpu, "InterpretGPUParams", None)  # exported since JAX 0.11
    if params is None:
        from jax._src.pallas.mosaic_gpu.interpret import params as module

        params = module.InterpretGPUParams
    return params(detect_races=detect_races)


def load(ref: Any, layout: Any) -> jax.Array:
    """A whole reference in registers of a layout, however many bank conflicts.

    Args:
      ref: The reference.
      layout: The layout, of `plgpu.Layout`.

    Returns:
      The array.
    """
    if "idx" in inspect.signature(plgpu.load).parameters:  # until JAX 0.10
        return plgpu.load(ref, (), layout=layout, optimized=False)
    return plgpu.load(ref, layout=layout, optimized=False)  # pyright: ignore
