"""What the benchmark times: shapes, widths of codes, rows, and how often."""

import dataclasses
import itertools
import math
from typing import NamedTuple

from pallas_kernels import bits as layouts
from pallas_kernels.dequant_matmul.cases import BENCHMARK_ROWS, BENCHMARK_SHAPES

__all__ = ["PRESETS", "Case", "Settings", "cases"]

_COUNTS = ("group_size", "repeats", "products", "most_sets", "stream_bytes")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What is timed, and how.

    Attributes:
      shapes: Pairs ``(K, N)``; K is a multiple of 32 and of `group_size`.
      bits: Widths of codes.
      rows: Rows of x.
      group_size: Rows of a matrix that share a scale.
      repeats: Timed runs of every program.
      products: Products of a timed run, at least; all sets have as many turns.
      most_sets: The most sets of weights to rotate; there are as many as take twice the
        last-level cache, but at least 3 and at most these.
      stream_bytes: Size of the array whose reading gives the memory's speed.

    Raises:
      ValueError: If a field is out of range.

    Examples:
      >>> Settings(shapes=[(100, 64)], bits=[3], rows=[1])
      Traceback (most recent call last):
        ...
      ValueError: shapes: K must be a multiple of 32 and of group_size 128, got 100
    """

    shapes: tuple[tuple[int, int], ...] = BENCHMARK_SHAPES
    bits: tuple[int, ...] = layouts.WIDTHS
    rows: tuple[int, ...] = BENCHMARK_ROWS
    group_size: int = 128
    repeats: int = 20
    products: int = 200
    most_sets: int = 32
    stream_bytes: int = 2**30

    def __post_init__(self):
        """Converts lists to tuples and checks the fields."""
        object.__setattr__(self, "shapes", tuple((k, n) for k, n in self.shapes))
        for field in ("bits", "rows"):
            object.__setattr__(self, field, tuple(dict.fromkeys(getattr(self, field))))
        for field in ("shapes", "bits", "rows"):
            if not getattr(self, field):
                raise ValueError(f"{field} must not be empty")
        for field in ("group_size", "repeats", "products", "most_sets", "stream_bytes"):
            if getattr(self, field) < 1:
                raise ValueError(
                    f"{field} must be positive, got {getattr(self, field)}"
                )
        for size, columns in self.shapes:
            if size < 1 or size % math.lcm(32, self.group_size):
                raise ValueError(
                    "shapes: K must be a multiple of 32 and of group_size "
                    f"{self.group_size}, got {size}"
                )
            if columns < 1:
                raise ValueError(f"shapes: N must be positive, got {columns}")
        for width in self.bits:
            if width not in layouts.WIDTHS:
                raise ValueError(f"bits must be of {layouts.WIDTHS}, got {width}")
        for rows in self.rows:
            if rows < 1:
                raise ValueError(f"rows must be positive, got {rows}")


PRESETS = {
    "small": Settings(
        shapes=((1024, 1024), (3584, 3584)),
        bits=(3,),
        rows=(1, 4, 16),
        products=3,
        most_sets=3,
    ),
    "full": Settings(),
    "smoke": Settings(
        shapes=((256, 64), (128, 256)),
        bits=(3,),
        rows=(1, 2),
        repeats=3,
        products=3,
        most_sets=3,
        stream_bytes=2**20,
    ),
}
"""``small``: under a minute on a CPU. ``full``: every shape, for a GPU. ``smoke``: that
everything runs, in seconds; its times mean nothing."""


class Case(NamedTuple):
    """One product: K, N, width of codes, rows of x."""

    size: int
    columns: int
    bits: int
    rows: int

    @property
    def name(self) -> str:
        """Short name, such as ``3584x18944.w3.m1``."""
        return f"{self.size}x{self.columns}.w{self.bits}.m{self.rows}"


def cases(settings: Settings) -> list[Case]:
    """The products of a benchmark, in order.

    Args:
      settings: What is timed.

    Examples:
      >>> [case.name for case in cases(PRESETS["smoke"])][:2]
      ['256x64.w3.m1', '256x64.w3.m2']
    """
    return [
        Case(*shape, bits, rows)
        for shape, bits, rows in itertools.product(
            settings.shapes, settings.bits, settings.rows
        )
    ]
