"""How a kernel cuts its work: settings, what they need, and which are worth trying."""

import dataclasses
import itertools
import math
from collections.abc import Iterator

from pallas_kernels.hopper import MULTIPROCESSORS, SHARED_MEMORY

__all__ = ["LANES", "Config", "Shapes", "candidates", "heuristic"]

LANES = 128
"""Columns of a block: one per thread of a warpgroup."""

_REGISTERS = {1: 32, 2: 42, 4: 66, 8: 116}  # per thread, by voters; of machine code
_FILE = 65536  # registers of a multiprocessor (NVIDIA, CUDA C++ Programming Guide)
_GRID = 65535  # blocks along an axis of a grid that is not the first
_COPIES = 8
_SPLITS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
_CLOCK = 1.98e9  # per second, of an H200
_ROW = 17  # instructions of a warp per row of the matrix, of machine code
_DRAW = 102  # and per draw
_LATENCY = 500  # cycles from a counter to its product; an assumption
_SECOND_KERNEL = 2e-6  # to start it; an assumption
_BANDWIDTH = 4.3e12  # bytes per second, of a copy on an H200


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shapes:
    """What a product looks like to the kernel.

    Attributes:
      branches: G, rows of x with voters of their own.
      voters: T, of each branch.
      size: K.
      columns: N.
      weight_bytes: Bytes of an entry of the mean and one of the standard deviation.
    """

    branches: int
    voters: int
    size: int
    columns: int
    weight_bytes: int = 8

    @property
    def draws(self) -> int:
        """Normal numbers that the product needs."""
        return self.branches * self.voters * self.size * self.columns


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the Mosaic GPU kernel.

    Attributes:
      voters: Voters of a thread, 1, 2, 4 or 8: what they share is read once.
      copies: How often the matrix stands beside itself, each time for other voters, so
        that few columns fill whole blocks; 1 to 8.
      split_k: Blocks that share a sum over K; more than one needs a second kernel that
        adds their results, in order.
      depth: Rows of the matrix in a tile, 1 to 256.
      stages: Tiles that a block has in shared memory, 1 to 8.

    Raises:
      ValueError: If a setting is out of range.

    Examples:
      >>> shapes = Shapes(branches=1, voters=100, size=784, columns=200)
      >>> config = Config(copies=3)
      >>> config.blocks(shapes), config.shared_memory(shapes)
      ((9, 5, 1), 33792)
    """

    voters: int = 4
    copies: int = 1
    split_k: int = 1
    depth: int = 16
    stages: int = 2

    def __post_init__(self):
        """Checks the settings."""
        if self.voters not in _REGISTERS:
            raise ValueError(
                f"voters must be one of {tuple(_REGISTERS)}, got {self.voters}"
            )
        for name, largest in (
            ("copies", _COPIES), ("split_k", _GRID), ("depth", 256), ("stages", 8)
        ):  # fmt: skip
            value = getattr(self, name)
            if not 1 <= value <= largest:
                raise ValueError(f"{name} must be in [1, {largest}], got {value}")

    def tiles(self, shapes: Shapes) -> int:
        """Tiles along K.

        Args:
          shapes: The product.
        """
        return math.ceil(shapes.size / self.depth)

    def blocks(self, shapes: Shapes) -> tuple[int, int, int]:
        """Blocks along branches and voters, along columns, and along K.

        Args:
          shapes: The product.
        """
        voters = math.ceil(shapes.voters / (self.copies * self.voters))
        columns = math.ceil(self.copies * shapes.columns / LANES)
        return shapes.branches * voters, columns, self.split_k

    def shared_memory(self, shapes: Shapes) -> int:
        """Bytes of shared memory that a block needs.

        Args:
          shapes: The product.
        """
        return self.stages * self.depth * LANES * shapes.weight_bytes + 1024

    def fits(self, shapes: Shapes) -> bool:
        """Whether a block fits on a multiprocessor, with tiles for every split of K.

        Args:
          shapes: The product.
        """
        return (
            self.shared_memory(shapes) <= SHARED_MEMORY
            and self.split_k <= self.tiles(shapes)
            and self.blocks(shapes)[1] <= _GRID
        )

    def seconds(self, shapes: Shapes) -> float:
        """An estimate of the time on an H200, to choose by; nothing was measured.

        A row of the matrix takes a multiprocessor one cycle per instruction of the
        blocks that it holds, as each of its four schedulers has a warp of every block;
        or, with few blocks, the time from a counter to its product. The multiprocessor
        with most blocks decides. Reading the matrix is not counted, as a draw takes far
        longer; the sums of several splits, written and read again, are.

        Args:
          shapes: The product.
        """
        blocks = math.ceil(math.prod(self.blocks(shapes)) / MULTIPROCESSORS)
        together = min(
            blocks,
            _FILE // (LANES * _REGISTERS[self.voters]),
            SHARED_MEMORY // self.shared_memory(shapes),
        )
        row = max(together * (_ROW + _DRAW * self.voters), _LATENCY)
        rows = math.ceil(self.tiles(shapes) / self.split_k) * self.depth
        first = blocks / together * rows * row / _CLOCK
        if self.split_k == 1:
            return first
        along_voters, along_columns, splits = self.blocks(shapes)
        sums = 4 * splits * along_voters * self.voters * along_columns * LANES
        return first + _SECOND_KERNEL + 2 * sums / _BANDWIDTH


def candidates(shapes: Shapes) -> Iterator[Config]:
    """Settings worth measuring for a product.

    Args:
      shapes: The product.

    Yields:
      Settings that fit.
    """
    copies = range(1, min(_COPIES, shapes.voters) + 1)
    for voters, times, split in itertools.product(_REGISTERS, copies, _SPLITS):
        config = Config(voters=voters, copies=times, split_k=split)
        needless = voters > 1 and voters * times >= 2 * shapes.voters
        if config.fits(shapes) and not needless:
            yield config


def heuristic(shapes: Shapes) -> Config:
    """Settings for a product nobody measured: the least estimated time.

    Args:
      shapes: The product.

    Returns:
      Settings that fit; of equally good ones, the fewest blocks.

    Examples:
      >>> heuristic(Shapes(branches=1, voters=100, size=784, columns=200))
      Config(voters=8, copies=7, split_k=6, depth=16, stages=2)
    """
    return min(
        candidates(shapes),
        key=lambda c: (c.seconds(shapes), math.prod(c.blocks(shapes)), c.copies),
    )
