"""What ``jeff run dm-bnn`` is asked to do, as one frozen value."""

import dataclasses
import math
from typing import Literal, get_args

from jeff.models import digits_mlp

__all__ = ["BATCH", "IMAGES", "DMBNNSettings", "Words"]

Words = Literal["float16", "bfloat16", "float32"]

IMAGES = 600
"""Test digits there are; a test holds this against the data."""
BATCH = 100
"""Images that faulty networks are asked about at a time."""

_LEVELS = len(digits_mlp.SIZES) - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class DMBNNSettings:
    """Settings of the study.

    Attributes:
      tree: Branches at the three levels of the tree that is called ``dm``; as many
        voters are drawn independently wherever no tree is named.
      pilot: Branches of the trees that variance components are estimated from.
      pilots: Number of such trees, each drawn anew.
      pilot_images: Images behind each pilot.
      repeats: Times that every program is timed, each with another test digit.
      quick_compile: Whether programs that are timed are compiled with fewer
        optimizations (XLA's level 1), in about half the time.
      rates: Probabilities that a stored bit is flipped, rising.
      devices: Faulty devices at each rate.
      device_images: Test digits each device is asked about, in hundreds.
      device_voters: Independent voters of a faulty Bayesian network.
      words: How a mean, a standard deviation and a weight of the twin are stored.

    Raises:
      TypeError: If a number is not whole where it must be.
      ValueError: If a field is out of range.

    Examples:
      >>> DMBNNSettings(tree=(20, 5, 1)).voters
      100
      >>> DMBNNSettings(tree=(100,))
      Traceback (most recent call last):
        ...
      ValueError: tree must have 3 levels: (100,)
    """

    tree: tuple[int, ...] = (10, 10, 1)
    pilot: tuple[int, ...] = (8, 4, 4)
    pilots: int = 5
    pilot_images: int = 200
    repeats: int = 15
    quick_compile: bool = True
    rates: tuple[float, ...] = (1e-6, 1e-5, 3e-5, 1e-4, 3e-4)
    devices: int = 8
    device_images: int = 200
    device_voters: int = 16
    words: Words = "float16"

    @property
    def voters(self) -> int:
        """Voters of the tree."""
        return math.prod(self.tree)

    def __post_init__(self):
        """Checks the fields."""
        for name, least in (("tree", 1), ("pilot", 2)):
            branches = getattr(self, name)
            if len(branches) != _LEVELS:
                raise ValueError(f"{name} must have {_LEVELS} levels: {branches}")
            for t in branches:
                _check_whole(name, t, least)
        if self.voters < 2:
            raise ValueError(f"tree must have two voters or more: {self.tree}")
        for name, least in (
            ("pilots", 2),
            ("pilot_images", 1),
            ("repeats", 6),
            ("devices", 2),
            ("device_images", BATCH),
            ("device_voters", 1),
        ):
            _check_whole(name, getattr(self, name), least)
        for name in ("pilot_images", "device_images", "repeats"):
            if getattr(self, name) > IMAGES:
                raise ValueError(
                    f"{name} must be at most {IMAGES}: {getattr(self, name)}"
                )
        if self.device_images % BATCH:
            raise ValueError(
                f"device_images must be a multiple of {BATCH}: {self.device_images}"
            )
        rising = all(a < b for a, b in zip(self.rates, self.rates[1:], strict=False))
        if not self.rates or not rising or not 0 < self.rates[0] <= self.rates[-1] <= 1:
            raise ValueError(f"rates must rise within (0, 1]: {self.rates}")
        if self.words not in get_args(Words):
            raise ValueError(f"words must be one of {get_args(Words)}: {self.words!r}")


def _check_whole(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be whole: {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}: {value}")
