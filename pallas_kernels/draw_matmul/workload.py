"""What the benchmark times: products, and how often."""

import dataclasses
from typing import NamedTuple

from pallas_kernels.draw_matmul.cases import BENCHMARK_SHAPES

__all__ = ["PRESETS", "Case", "Settings", "cases"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What is timed, and how.

    Attributes:
      shapes: ``(K, N, T)``.
      repeats: Timed runs of every program.
      products: Products of a timed run.

    Raises:
      ValueError: If a field is out of range.
    """

    shapes: tuple[tuple[int, int, int], ...] = BENCHMARK_SHAPES
    repeats: int = 20
    products: int = 200

    def __post_init__(self):
        """Converts lists to tuples and checks the fields."""
        object.__setattr__(self, "shapes", tuple((k, n, t) for k, n, t in self.shapes))
        if not self.shapes or any(min(shape) < 1 for shape in self.shapes):
            raise ValueError(f"shapes must be positive, got {self.shapes}")
        for field in ("repeats", "products"):
            if getattr(self, field) < 1:
                raise ValueError(
                    f"{field} must be positive, got {getattr(self, field)}"
                )


PRESETS = {
    "small": Settings(
        shapes=((784, 200, 10), (200, 200, 10), (200, 10, 100)), products=1
    ),
    "full": Settings(),
    "smoke": Settings(shapes=((20, 6, 4),), repeats=3, products=1),
}
"""``small``: under a minute on a CPU. ``full``: for a GPU. ``smoke``: that everything
runs, in seconds; its times mean nothing."""


class Case(NamedTuple):
    """One product: K, N and T."""

    size: int
    columns: int
    voters: int

    @property
    def name(self) -> str:
        """Short name, such as ``784x200.t100``."""
        return f"{self.size}x{self.columns}.t{self.voters}"

    @property
    def draws(self) -> int:
        """Random numbers that it takes."""
        return self.size * self.columns * self.voters


def cases(settings: Settings) -> list[Case]:
    """The products of a benchmark, in order.

    Args:
      settings: What is timed.

    Examples:
      >>> [case.name for case in cases(PRESETS["smoke"])]
      ['20x6.t4']
    """
    return [Case(*shape) for shape in settings.shapes]
