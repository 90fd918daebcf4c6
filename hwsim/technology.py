"""What an operation costs in a technology: energy, delay and area per bit.

Every number carries its source in words, and whether it was checked. Adders grow with
the number of bits, multipliers with the product of both widths, an SRAM access with the
square root of the capacity: laws that the published 8-bit and 32-bit numbers follow to
about 30 % (see `CMOS45`). Use ``dataclasses.replace`` to put your own numbers in.

References:
  M. Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014,
  doi 10.1109/ISSCC.2014.6757323: energies at 45 nm and 0.9 V.
"""

import dataclasses
import math
from collections.abc import Sequence

__all__ = ["CMOS45", "Cost", "Technology", "together"]


@dataclasses.dataclass(frozen=True)
class Cost:
    """Cost of one operation, or of one part.

    Attributes:
      energy_j: Energy per use, in joules.
      delay_s: Time from inputs to outputs, in seconds.
      area_m2: Area, in square metres.
      source: Where the numbers come from.

    Raises:
      ValueError: If a number is negative or not finite.

    Examples:
      >>> Cost(1e-15, 1e-11, 1e-12, "assumed").times(8, depth=2)
      Cost(energy_j=8e-15, delay_s=2e-11, area_m2=8e-12, source='assumed')
    """

    energy_j: float
    delay_s: float
    area_m2: float
    source: str

    def __post_init__(self):
        """Checks the numbers."""
        for name in ("energy_j", "delay_s", "area_m2"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be finite and at least 0, got {value!r}")

    def times(self, count: float, *, depth: float = 1.0) -> "Cost":
        """`count` of these, `depth` of them one after another.

        Args:
          count: How many, for energy and area.
          depth: How many on the longest path, for the delay.

        Returns:
          The cost of all, with the same source.
        """
        return Cost(
            self.energy_j * count,
            self.delay_s * depth,
            self.area_m2 * count,
            self.source,
        )


def together(costs: Sequence[Cost], *, source: str) -> Cost:
    """Parts that work in the same cycle: sums of energy and area, the largest delay.

    Args:
      costs: The parts, at least one.
      source: What the sum is called.

    Returns:
      The cost of all.

    Examples:
      >>> part = Cost(1e-15, 1e-11, 1e-12, "assumed")
      >>> together([part, part], source="two").energy_j
      2e-15
    """
    return Cost(
        sum(cost.energy_j for cost in costs),
        max(cost.delay_s for cost in costs),
        sum(cost.area_m2 for cost in costs),
        source,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Technology:
    """Costs per bit, and how they grow.

    Attributes:
      name: What the technology is called in reports.
      adder_bit: One bit of a ripple-carry adder.
      multiplier_bit: One cell of an array multiplier; energy and area per product of
        the widths, delay per bit of their sum.
      flip_flop: One bit of a register, per clock.
      xor_gate: One two-input exclusive-or.
      sram_bit: One bit of an SRAM: energy per bit read or written and delay in a memory
        of `sram_bank_bits`, area per bit with its share of the periphery.
      sram_bank_bits: Largest bank. Smaller memories cost less, with the square root of
        the capacity; larger ones are several banks, of which an access wakes one.

    Raises:
      ValueError: If `sram_bank_bits` is less than 1.

    Examples:
      >>> print(f"{CMOS45.multiplier(8, 8).energy_j:.1e} J")
      2.0e-13 J
      >>> mine = dataclasses.replace(
      ...     CMOS45, name="mine", xor_gate=Cost(2e-15, 2e-11, 2e-12, "our library")
      ... )
      >>> mine.xor_gate.energy_j
      2e-15
    """

    name: str
    adder_bit: Cost
    multiplier_bit: Cost
    flip_flop: Cost
    xor_gate: Cost
    sram_bit: Cost
    sram_bank_bits: int

    def __post_init__(self):
        """Checks the fields."""
        if self.sram_bank_bits < 1:
            raise ValueError(
                f"sram_bank_bits must be at least 1, got {self.sram_bank_bits!r}"
            )

    def adder(self, bits: int) -> Cost:
        """An adder of two numbers of `bits` bits.

        Args:
          bits: Width of the result.

        Returns:
          Its cost.
        """
        return self.adder_bit.times(bits, depth=bits)

    def multiplier(self, first_bits: int, second_bits: int) -> Cost:
        """A multiplier of two integers.

        Args:
          first_bits: Width of one factor.
          second_bits: Width of the other.

        Returns:
          Its cost.
        """
        return self.multiplier_bit.times(
            first_bits * second_bits, depth=first_bits + second_bits
        )

    def register(self, bits: int) -> Cost:
        """A register.

        Args:
          bits: Its width.

        Returns:
          Its cost; the energy is that of one clock.
        """
        return self.flip_flop.times(bits)

    def sram(self, capacity_bits: float, word_bits: int) -> Cost:
        """A memory: energy of one access to a word, area of the whole.

        Args:
          capacity_bits: Its size; of 0 bits everything is 0.
          word_bits: Bits per access.

        Returns:
          Its cost.
        """
        bank = min(capacity_bits, self.sram_bank_bits)
        root = math.sqrt(bank / self.sram_bank_bits)
        return Cost(
            self.sram_bit.energy_j * word_bits * root,
            self.sram_bit.delay_s * root,
            self.sram_bit.area_m2 * capacity_bits,
            self.sram_bit.source,
        )


_FO4 = 16e-12  # s; "360 ps per micrometre of gate length", recalled, times 0.045

CMOS45 = Technology(
    name="generic 45 nm CMOS",
    adder_bit=Cost(
        0.03e-12 / 8,
        2 * _FO4,
        36e-12 / 8,
        "energy: Horowitz, ISSCC 2014, 8-bit add 0.03 pJ (recalled; its 32-bit 0.1 pJ, "
        "checked in PMC8934428, table 3, is 3.1 fJ per bit against 3.75 here); "
        "area: 36 um2 for 8 bits, as the table is often shown (recalled); "
        "delay: assumed, 2 fan-out-of-4 delays per bit",
    ),
    multiplier_bit=Cost(
        0.2e-12 / 64,
        2 * _FO4,
        282e-12 / 64,
        "energy: Horowitz, ISSCC 2014, 8-bit multiply 0.2 pJ (recalled; its 32-bit "
        "3.1 pJ, checked in PMC8934428, is 3.0 fJ per cell against 3.1 here); "
        "area: 282 um2 for 8 bits (recalled; 3495 for 32 bits is 3.4 against 4.4); "
        "delay: assumed, 2 fan-out-of-4 delays per bit of both widths",
    ),
    flip_flop=Cost(
        5.6e-15,
        3 * _FO4,
        4.522e-12,
        "energy: derived, 3.5 fJ per bit written at 28 nm (stillwater-sc.github.io, "
        "switching energy estimates) times 45/28; area: DFF_X1 of the NanGate 45 nm "
        "library (recalled); delay: assumed, 3 fan-out-of-4 delays",
    ),
    xor_gate=Cost(
        1.25e-15,
        1 * _FO4,
        1.596e-12,
        "energy: derived, a third of an adder bit (two exclusive-ors and a majority); "
        "area: XOR2_X1 of the NanGate 45 nm library (recalled); delay: assumed",
    ),
    sram_bit=Cost(
        10e-12 / 64,
        25 * _FO4,
        0.37e-12 / 0.5,
        "energy: Horowitz, ISSCC 2014, 64 bits of 8 KB 10 pJ (checked in PMC8934428; "
        "32 KB 20 pJ and 1 MB 100 pJ, recalled, grow as the square root to 13 %); "
        "area: cell of 0.37 um2 (Nii et al., ISQED 2013, abstract) at an assumed "
        "array efficiency of one half; delay: assumed, 25 fan-out-of-4 delays",
    ),
    sram_bank_bits=8 * 1024 * 8,
)
"""Integers and SRAM at 45 nm. No leakage, no clock tree, no wires between blocks."""
