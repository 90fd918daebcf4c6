"""How a kernel cuts its work: settings, what they need, and which are worth trying."""

import dataclasses
import itertools
import math
from collections.abc import Iterator

__all__ = [
    "DEPTH",
    "MAX_ROWS",
    "MULTIPROCESSORS",
    "SHARED_MEMORY",
    "TILE",
    "Config",
    "Shapes",
    "candidates",
    "heuristic",
]

SHARED_MEMORY = 227 * 1024
"""Bytes of shared memory that one block may use on compute capability 9.0 (NVIDIA,
CUDA C++ Programming Guide, table of technical specifications)."""

MULTIPROCESSORS = 132
"""Multiprocessors of an H100 or H200 SXM (NVIDIA H100 white paper)."""

TILE = 512
"""Codes of K in a tile of the kernel's layout: 32 slots of 16."""

DEPTH = 16
"""Codes along K per instruction of the matrix unit, and the stride of the layout."""

MAX_ROWS = 64
"""Rows of x that a block multiplies at once."""

_WARPGROUPS = (1, 2, 4)
_COLUMN_BLOCKS = (64, 128, 256)
_STAGES = (2, 3, 4)
_SPLITS = (1, 2, 4)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shapes:
    """What a product looks like to the kernel.

    Attributes:
      stack: Matrices multiplied side by side, L.
      rows: Rows of x, M, after `f32` rows were split in three.
      size: K.
      columns: N.
      bits: Width of a code.
      group_size: Rows of the matrix that share a scale.
      scale_bytes: Bytes of a scale and, if there is one, of a zero point together.
    """

    stack: int
    rows: int
    size: int
    columns: int
    bits: int
    group_size: int
    scale_bytes: int

    @property
    def tiles(self) -> int:
        """Tiles along K."""
        return math.ceil(self.size / TILE)

    @property
    def row_blocks(self) -> int:
        """Blocks of at most `MAX_ROWS` rows of x."""
        return math.ceil(self.rows / MAX_ROWS)

    @property
    def padded_rows(self) -> int:
        """Rows of a block of x as the matrix unit takes them, a multiple of 8."""
        return math.ceil(self.rows / self.row_blocks / 8) * 8

    @property
    def groups_per_tile(self) -> int:
        """Rows of scales that a tile needs."""
        return max(TILE // self.group_size, 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the Mosaic GPU kernel.

    A block takes `block_columns` columns and a `split_k`-th of K. Its warpgroups share
    the tiles of that part and add up in a fixed order, as do the splits, so that a
    product is the same from run to run.

    Attributes:
      block_columns: Columns of the matrix per block: 64, 128 or 256.
      warpgroups: Warpgroups of 128 threads per block, each with tiles of its own.
      stages: Tiles that a warpgroup has in flight.
      split_k: Blocks that share a column block; more than one needs a second kernel
        that adds their results.

    Raises:
      ValueError: If a setting is out of range.
    """

    block_columns: int = 64
    warpgroups: int = 1
    stages: int = 3
    split_k: int = 1

    def __post_init__(self):
        """Checks the settings."""
        if self.block_columns not in _COLUMN_BLOCKS:
            raise ValueError(
                f"block_columns must be one of {_COLUMN_BLOCKS}, "
                f"got {self.block_columns}"
            )
        for name, largest in (("warpgroups", 8), ("stages", 8), ("split_k", 64)):
            value = getattr(self, name)
            if not 1 <= value <= largest:
                raise ValueError(f"{name} must be in [1, {largest}], got {value}")

    def shared_memory(self, shapes: Shapes) -> int:
        """Bytes of shared memory that a block needs.

        Args:
          shapes: The product.
        """
        x = shapes.padded_rows * TILE * 2
        words = TILE * shapes.bits // 8 * self.block_columns
        scales = shapes.groups_per_tile * self.block_columns * shapes.scale_bytes
        sums = self.block_columns * shapes.padded_rows * 4
        in_flight = self.warpgroups * self.stages * (x + words + scales)
        return in_flight + (self.warpgroups + 1) * sums + 1024

    def accumulators(self, shapes: Shapes) -> int:
        """32-bit registers of a thread that hold sums.

        Args:
          shapes: The product.
        """
        per_block = shapes.padded_rows // 2  # of 64 columns, over 128 threads
        return (self.block_columns // 64 + 1) * per_block

    def fits(self, shapes: Shapes) -> bool:
        """Whether a block fits on a multiprocessor without spilling.

        Args:
          shapes: The product.
        """
        threads = 128 * self.warpgroups
        registers = min(65536 // threads, 255)
        return (
            self.shared_memory(shapes) <= SHARED_MEMORY
            and self.accumulators(shapes) + 96 <= registers
            and self.warpgroups * self.split_k <= max(shapes.tiles, 1)
        )


def candidates(shapes: Shapes) -> Iterator[Config]:
    """Settings worth measuring for a product.

    Args:
      shapes: The product.

    Yields:
      Settings that fit.
    """
    for columns, warpgroups, stages, split in itertools.product(
        _COLUMN_BLOCKS, _WARPGROUPS, _STAGES, _SPLITS
    ):
        config = Config(
            block_columns=columns, warpgroups=warpgroups, stages=stages, split_k=split
        )
        if config.fits(shapes):
            yield config


def heuristic(shapes: Shapes) -> Config:
    """Settings for a product nobody measured.

    Little's law sets the aim: at 4.3 TB/s and about 1 us of latency, 33 kB must be in
    flight on each of 132 multiprocessors. Blocks of 64 columns are spread over them;
    where there are fewer blocks than multiprocessors, more warpgroups share each block
    (and bring more bytes into flight) before K is split, which costs a second kernel.

    Args:
      shapes: The product.

    Returns:
      Settings that fit; the smallest ones where none of the wanted do.

    Examples:
      >>> shapes = Shapes(stack=1, rows=1, size=3584, columns=18944, bits=3,
      ...                 group_size=128, scale_bytes=3)
      >>> heuristic(shapes)
      Config(block_columns=64, warpgroups=1, stages=3, split_k=1)
    """
    blocks = shapes.stack * shapes.row_blocks * math.ceil(shapes.columns / 64)
    warpgroups = (1,) if blocks >= 2 * MULTIPROCESSORS else (4, 2, 1)
    splits = (1,) if 3 * blocks >= MULTIPROCESSORS else (4, 2, 1)
    for together, stages, split in itertools.product(warpgroups, (3, 2), splits):
        config = Config(warpgroups=together, stages=stages, split_k=split)
        if config.fits(shapes):
            return config
    return Config(stages=1)
