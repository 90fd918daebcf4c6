"""How a kernel cuts its work: settings, what they need, and which are worth trying."""

import dataclasses
import itertools
import math
from collections.abc import Iterator

from pallas_kernels.hopper import MULTIPROCESSORS, SHARED_MEMORY

__all__ = [
    "DEPTH",
    "MAX_ROWS",
    "TILE",
    "Config",
    "Shapes",
    "candidates",
    "heuristic",
]

TILE = 512
"""Codes of K in a tile of the kernel's layout: 32 slots of 16."""

DEPTH = 16
"""Codes along K per instruction of the matrix unit, and the stride of the layout."""

MAX_ROWS = 64
"""Rows of x that a block multiplies at once."""

_WARPGROUPS = (1, 2, 4)
_COLUMN_BLOCKS = (64, 128, 256)
_STAGES = (2, 3, 4)
_SPLITS = (1, 2, 3, 4, 5, 6, 7)
_BANDWIDTH = 4.3e12  # bytes per second, of a copy on an H200
_TILE_SECONDS = (
    827 / 1.98e9
)  # instructions of a tile of 64 columns (W3), at one a cycle
_SECOND_KERNEL = 2e-6  # to start it; an assumption
_ENOUGH = 66_000  # bytes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shapes:
    """What a product looks like to the kernel.

    Attributes:
      stack: Matrices multiplied side by side, L.
      rows: Rows of x, M; those of a float32 x count three times.
      size: K.
      columns: N.
      bits: Width of a code.
      group_size: Rows of the matrix that share a scale; whole tiles if all do.
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

    Examples:
      >>> shapes = Shapes(stack=1, rows=1, size=18944, columns=3584, bits=3,
      ...                 group_size=128, scale_bytes=3)
      >>> config = Config(warpgroups=2, stages=3)
      >>> config.shared_memory(shapes), config.fits(shapes)
      (139776, True)
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
        result = self.block_columns * shapes.padded_rows * 4
        sums = result * self.warpgroups if self.warpgroups > 1 else 0
        slots = self.warpgroups * self.stages
        return slots * (x + words + scales) + sums + result + 6 * 1024  # aligned

    def accumulators(self, shapes: Shapes) -> int:
        """32-bit registers of a thread that hold sums.

        Args:
          shapes: The product.
        """
        per_block = shapes.padded_rows // 2  # of 64 columns, over 128 threads
        return (self.block_columns // 64 + 1) * per_block

    def fits(self, shapes: Shapes) -> bool:
        """Whether a block fits on a multiprocessor, with tiles for every warpgroup.

        Registers are an estimate: 64 rows of x, or floating zero points, may spill.

        Args:
          shapes: The product.
        """
        threads = 128 * self.warpgroups
        registers = min(65536 // threads, 255)
        return (
            self.shared_memory(shapes) <= SHARED_MEMORY
            and self.accumulators(shapes) + 96 <= registers
            and self.warpgroups * self.split_k <= shapes.tiles
        )

    def seconds(self, shapes: Shapes) -> float:
        """An estimate of the time on an H200, to choose by; nothing was measured.

        The longer of two: reading all words and scales, and the instructions of the
        multiprocessor that has most blocks. Where K is split, a second kernel comes on
        top, and the sums that the first writes and it reads.

        Args:
          shapes: The product.
        """
        packed = shapes.size * shapes.columns * shapes.bits / 8
        scales = shapes.tiles * shapes.groups_per_tile * shapes.columns
        reading = shapes.stack * (packed + scales * shapes.scale_bytes) / _BANDWIDTH
        blocks = shapes.stack * shapes.row_blocks * self.split_k
        blocks *= math.ceil(shapes.columns / self.block_columns)
        tiles = math.ceil(shapes.tiles / self.split_k) * self.block_columns / 64
        most = math.ceil(blocks / MULTIPROCESSORS) * tiles
        first = max(reading, most * _TILE_SECONDS)
        if self.split_k == 1:
            return first
        sums = 4 * shapes.stack * self.split_k * shapes.rows * shapes.columns
        return first + _SECOND_KERNEL + 2 * sums / _BANDWIDTH

    def in_flight(self, shapes: Shapes) -> float:
        """Bytes of words in flight on a multiprocessor with its share of blocks.

        Args:
          shapes: The product.
        """
        blocks = shapes.stack * shapes.row_blocks * self.split_k
        blocks *= math.ceil(shapes.columns / self.block_columns)
        here = max(blocks / MULTIPROCESSORS, 1.0)
        here = min(here, SHARED_MEMORY // self.shared_memory(shapes))
        tile = TILE * shapes.bits // 8 * self.block_columns
        return here * self.warpgroups * self.stages * tile


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

    The least estimated time (`Config.seconds`) among blocks of 64 columns; among equal
    ones, the fewest warpgroups that bring enough bytes into flight. By Little's law, at
    4.3 TB/s and about 1 us of latency, enough is 33 kB on each of 132 multiprocessors;
    twice that leaves room for waiting.

    Args:
      shapes: The product.

    Returns:
      Settings that fit; the smallest ones where none of the wanted do.

    Examples:
      >>> shapes = Shapes(stack=1, rows=1, size=3584, columns=3584, bits=3,
      ...                 group_size=128, scale_bytes=3)
      >>> heuristic(shapes)
      Config(block_columns=64, warpgroups=2, stages=3, split_k=1)
    """
    wanted = [
        Config(warpgroups=together, stages=stages, split_k=split)
        for split, together, stages in itertools.product(_SPLITS, (1, 2, 4), (3, 2))
    ]
    fitting = [config for config in wanted if config.fits(shapes)]
    if not fitting:
        return Config(stages=1)
    return min(
        fitting,
        key=lambda config: (
            config.seconds(shapes),
            config.in_flight(shapes) < _ENOUGH,
            config.warpgroups,
            -config.stages,
        ),
    )
