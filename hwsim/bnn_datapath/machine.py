"""The circuit that runs Bayesian inference: lanes, memories, and what they cost."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Protocol

from hwsim.rng.clt import Clt
from hwsim.rng.structure import Structure, lane_cost
from hwsim.technology import CMOS45, Cost, Technology

__all__ = ["Generator", "Machine"]


class Generator(Protocol):
    """Anything that knows what one lane of it is built of."""

    def structure(self) -> Structure:
        """The parts of a lane that gives one draw per clock."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
    """A datapath.

    Attributes:
      multipliers: Products per clock.
      adders: Sums per clock; each has an accumulator.
      draw_lanes: Draws per clock, a lane each.
      parameter_ports: Words per clock from the memory of means and deviations.
      buffer_ports: Words per clock to and from the memory of beta.
      alpha: Share of the rows of beta that are kept at a time, in (0, 1]; rows are
        finished for all voters block by block, which changes the size of the buffer
        only.
      word_bits: Bits of parameters, draws, activations and beta.
      accumulator_bits: Bits of adders and their accumulators: 26 hold 1,024 products of
        two 8-bit words.
      generator: What a draw lane is: `Clt`, `Rlf`, `Wallace` or your own.
      technology: What the parts cost.

    Raises:
      ValueError: If a number is out of range.

    Examples:
      >>> f"{Machine().clock_s:.2e} s"
      '8.80e-10 s'
    """

    multipliers: int = 64
    adders: int = 64
    draw_lanes: int = 64
    parameter_ports: int = 64
    buffer_ports: int = 64
    alpha: float = 1.0
    word_bits: int = 8
    accumulator_bits: int = 26
    generator: Generator = Clt(terms=12, bits=8, width=32)
    technology: Technology = CMOS45

    def __post_init__(self):
        """Checks the fields."""
        for name in (
            "multipliers", "adders", "draw_lanes", "parameter_ports", "buffer_ports",
            "word_bits", "accumulator_bits",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name} must be at least 1, got {getattr(self, name)}"
                )
        if not 0 < self.alpha <= 1:
            raise ValueError(f"alpha must be in (0, 1], got {self.alpha!r}")

    @functools.cached_property
    def multiplier(self) -> Cost:
        """One multiplier."""
        return self.technology.multiplier(self.word_bits, self.word_bits)

    @functools.cached_property
    def adder(self) -> Cost:
        """One adder with its accumulator."""
        adder = self.technology.adder(self.accumulator_bits)
        register = self.technology.register(self.accumulator_bits)
        return Cost(
            adder.energy_j + register.energy_j,
            adder.delay_s,
            adder.area_m2 + register.area_m2,
            self.technology.name,
        )

    @functools.cached_property
    def draw(self) -> Cost:
        """One lane of the generator; the energy is that of a draw."""
        return lane_cost(self.generator.structure(), self.technology)

    def memory(self, words: float) -> Cost:
        """A memory of `words` words: energy of a word moved, area of all.

        Args:
          words: Its size.

        Returns:
          The cost.
        """
        return self.technology.sram(words * self.word_bits, self.word_bits)

    def buffer_words(
        self, layers: Sequence[tuple[int, int]], branches: Sequence[int]
    ) -> int:
        """Size of the memory of beta, for the layer that needs most.

        Args:
          layers: Pairs (M, N) of the decomposed layers.
          branches: How many betas each keeps at a time: 1, or with shared draws one per
            branch.

        Returns:
          Words, ``ceil(alpha M) N`` per beta; 0 without layers.
        """
        return max(
            (
                math.ceil(self.alpha * m) * n * b
                for (m, n), b in zip(layers, branches, strict=True)
            ),
            default=0,
        )

    @property
    def clock_s(self) -> float:
        """Time of a clock: the slowest part, one stage each, and a register."""
        slowest = max(
            self.multiplier.delay_s,
            self.adder.delay_s,
            self.draw.delay_s,
            self.technology.sram_bit.delay_s,
        )
        return slowest + self.technology.flip_flop.delay_s
