"""What a generator is built of, for its energy and area.

References:
  Derivation: the counts are of the circuits that `hwsim.rng` simulates, one draw per
  clock; control logic and wires are not counted.
"""

import dataclasses
from typing import NamedTuple

from hwsim.technology import Cost, Technology, together

__all__ = ["Structure", "lane_cost"]


class Structure(NamedTuple):
    """Parts of one lane, a circuit that gives one draw per clock.

    Fractions are shares of a part that several lanes have in common.

    Attributes:
      flip_flops: Bits of registers, all clocked every cycle.
      xor_gates: Two-input exclusive-ors.
      adder_bits: Bits of all adders together.
      longest_adder: Bits of the longest adder, which sets the delay.
      multiplier_bits: Products of the two widths of each multiplier.
      longest_multiplier: Sum of the two widths of the longest multiplier.
      ram_bits: Capacity of memories.
      ram_bits_moved: Bits read and written per draw.
    """

    flip_flops: float
    xor_gates: float
    adder_bits: float
    longest_adder: int
    multiplier_bits: float = 0.0
    longest_multiplier: int = 0
    ram_bits: float = 0.0
    ram_bits_moved: float = 0.0


def lane_cost(structure: Structure, technology: Technology) -> Cost:
    """Energy of one draw, delay of the slowest part, area of one lane.

    Args:
      structure: What the lane is built of.
      technology: What its parts cost.

    Returns:
      The cost; its source names the technology.

    Examples:
      >>> from hwsim import CMOS45
      >>> lane = Structure(flip_flops=32, xor_gates=3, adder_bits=0, longest_adder=0)
      >>> print(f"{lane_cost(lane, CMOS45).energy_j:.2e} J")
      1.83e-13 J
    """
    adder = technology.adder_bit
    multiplier = technology.multiplier_bit
    ram = technology.sram(structure.ram_bits, 1)
    parts = [
        technology.flip_flop.times(structure.flip_flops),
        technology.xor_gate.times(structure.xor_gates),
        adder.times(structure.adder_bits, depth=structure.longest_adder),
        multiplier.times(structure.multiplier_bits, depth=structure.longest_multiplier),
        dataclasses.replace(ram, energy_j=ram.energy_j * structure.ram_bits_moved),
    ]
    return together(parts, source=f"lane of {technology.name}")
