"""Named products: those that tests run, and those that the benchmark times."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pallas_kernels import bits as layouts
from pallas_kernels.dequant_matmul.config import Config

__all__ = ["BENCHMARK_ROWS", "BENCHMARK_SHAPES", "CASES", "Arrays", "Case", "make"]

BENCHMARK_SHAPES = (
    (3584, 3584),
    (3584, 10752),
    (3584, 18944),
    (18944, 3584),
    (8192, 29568),
    (16384, 16384),
)
"""``(K, N)`` of the linear layers that papers time: those of Qwen2-7B (MBQ, arXiv
2412.19509, section 4.4), one of Qwen2-72B, and a large square."""

BENCHMARK_ROWS = (1, 2, 4, 8, 16, 32, 64)
"""Rows of x, M, that the benchmark times."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A product.

    Attributes:
      rows: M.
      size: K.
      columns: N.
      bits: Width of a code.
      group_size: Rows of the matrix that share a scale.
      x_dtype: Dtype of x.
      scale_dtype: Dtype of the scales.
      zero: Dtype of the zero points; ``None`` for symmetric codes.
      stack: Matrices side by side; 0 for one without a leading axis.
      stride: S of the packed layout.
      config: Settings of the kernel; ``None`` for the heuristic's.
      kernel: Whether the GPU kernel can do it.
    """

    rows: int
    size: int
    columns: int
    bits: int
    group_size: int
    x_dtype: str = "bfloat16"
    scale_dtype: str = "bfloat16"
    zero: str | None = "uint8"
    stack: int = 0
    stride: int = 16
    config: Config | None = None
    kernel: bool = True


class Arrays(NamedTuple):
    """The operands of a product; see `dequant_matmul`."""

    x: jax.Array
    packed: jax.Array
    scale: jax.Array
    zero: jax.Array | None


_SPLIT = Config(split_k=2)
_SHARED = Config(warpgroups=2, stages=2)
_WIDE = Config(block_columns=128, stages=2)

CASES = {
    "w3 m1": Case(rows=1, size=1024, columns=64, bits=3, group_size=128),
    "w3 two warpgroups": Case(
        rows=1, size=1536, columns=64, bits=3, group_size=128, config=_SHARED
    ),
    "w3 split": Case(
        rows=2, size=1024, columns=64, bits=3, group_size=128, config=_SPLIT
    ),
    "w3 wide": Case(
        rows=1, size=512, columns=128, bits=3, group_size=128, config=_WIDE
    ),
    "w3 slots used again": Case(
        rows=1,
        size=1536,
        columns=64,
        bits=3,
        group_size=128,
        config=Config(stages=1),
    ),
    "w2": Case(rows=3, size=512, columns=64, bits=2, group_size=64),
    "w4": Case(rows=8, size=512, columns=64, bits=4, group_size=128),
    "w8": Case(rows=4, size=512, columns=64, bits=8, group_size=128),
    "w2 float16": Case(
        rows=1, size=512, columns=64, bits=2, group_size=128, x_dtype="float16"
    ),
    "w3 float16": Case(
        rows=1,
        size=512,
        columns=64,
        bits=3,
        group_size=128,
        x_dtype="float16",
        scale_dtype="float16",
    ),
    "w4 float16": Case(
        rows=1, size=512, columns=64, bits=4, group_size=32, x_dtype="float16"
    ),
    "w8 float16": Case(
        rows=1, size=512, columns=64, bits=8, group_size=512, x_dtype="float16"
    ),
    "w3 float32": Case(
        rows=2, size=512, columns=64, bits=3, group_size=128, x_dtype="float32"
    ),
    "w4 float32, float32 scales": Case(
        rows=5,
        size=512,
        columns=64,
        bits=4,
        group_size=128,
        x_dtype="float32",
        scale_dtype="float32",
    ),
    "w3 symmetric": Case(
        rows=1, size=512, columns=64, bits=3, group_size=128, zero=None
    ),
    "w3 float zero": Case(
        rows=2, size=512, columns=64, bits=3, group_size=128, zero="bfloat16"
    ),
    "w8 float zero": Case(
        rows=1,
        size=512,
        columns=64,
        bits=8,
        group_size=128,
        x_dtype="float16",
        scale_dtype="float16",
        zero="float16",
    ),
    "w4 groups of 16": Case(rows=1, size=512, columns=64, bits=4, group_size=16),
    "w4 groups of two tiles": Case(
        rows=1, size=2048, columns=64, bits=4, group_size=1024
    ),
    "w4 one group": Case(rows=1, size=1000, columns=64, bits=4, group_size=1000),
    "w3 one short group": Case(rows=2, size=48, columns=64, bits=3, group_size=48),
    "w4 one shorter group": Case(rows=1, size=40, columns=64, bits=4, group_size=40),
    "w3 ragged K": Case(rows=2, size=640, columns=64, bits=3, group_size=128),
    "w3 ragged N": Case(rows=2, size=512, columns=96, bits=3, group_size=128),
    "w3 narrow N": Case(rows=1, size=512, columns=32, bits=3, group_size=128),
    "w3 m9": Case(rows=9, size=512, columns=64, bits=3, group_size=128),
    "w3 m16": Case(rows=16, size=512, columns=64, bits=3, group_size=128),
    "w2 m64": Case(rows=64, size=512, columns=64, bits=2, group_size=128),
    "w2 m64 float32": Case(
        rows=64, size=512, columns=64, bits=2, group_size=128, x_dtype="float32"
    ),
    "w3 stack": Case(rows=2, size=512, columns=64, bits=3, group_size=128, stack=2),
    "w3 stride 1": Case(
        rows=2, size=96, columns=8, bits=3, group_size=32, stride=1, kernel=False
    ),
    "w3 groups not nested": Case(
        rows=5, size=192, columns=8, bits=3, group_size=96, stride=2, kernel=False
    ),
    "w2 groups of 4": Case(
        rows=2, size=512, columns=8, bits=2, group_size=4, kernel=False
    ),
    "w4 odd N": Case(
        rows=1, size=512, columns=50, bits=4, group_size=128, kernel=False
    ),
    "w8 one by one": Case(
        rows=1, size=1, columns=1, bits=8, group_size=1, stride=1, kernel=False
    ),
}
"""Small products that cover what an implementation may be asked."""

_pack = jax.jit(layouts.pack, static_argnames=("bits", "axis", "stride"))


def make(case: Case, seed: int = 0) -> Arrays:
    """Random operands of a product.

    Args:
      case: The product.
      seed: Of NumPy's generator.

    Returns:
      The operands: standard normal x, codes and zero points uniform over their range,
      scales within a factor of 3.

    Examples:
      >>> {name: a.shape for name, a in make(CASES["w3 m1"])._asdict().items()}
      {'x': (1, 1024), 'packed': (96, 64), 'scale': (8, 64), 'zero': (8, 64)}
    """
    rng = np.random.default_rng(seed)
    stack = (case.stack,) if case.stack else ()
    tile = 32 * case.stride
    filled = -(-case.size // tile) * tile
    codes = rng.integers(0, 2**case.bits, (*stack, filled, case.columns), np.uint8)
    codes[..., case.size :, :] = 0
    groups = (*stack, case.size // case.group_size, case.columns)
    scale = rng.uniform(0.5, 1.5, groups)
    zero: Any = None
    if case.zero is not None:
        zero = rng.integers(0, 2**case.bits, groups)
        if case.zero != "uint8":
            zero = zero + rng.uniform(-0.5, 0.5, groups)
        zero = jnp.asarray(zero, case.zero)
    return Arrays(
        x=jnp.asarray(rng.normal(size=(*stack, case.rows, case.size)), case.x_dtype),
        packed=_pack(codes, bits=case.bits, axis=-2, stride=case.stride),
        scale=jnp.asarray(scale, case.scale_dtype),
        zero=zero,
    )
