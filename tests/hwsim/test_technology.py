import dataclasses
import math

import pytest

from hwsim import CMOS45, Cost, together


def test_the_laws_give_the_published_numbers():
    """Horowitz, ISSCC 2014 (45 nm), to the deviation that the module states."""
    assert CMOS45.adder(8).energy_j == pytest.approx(0.03e-12)
    assert CMOS45.adder(32).energy_j == pytest.approx(0.1e-12, rel=0.25)
    assert CMOS45.multiplier(8, 8).energy_j == pytest.approx(0.2e-12)
    assert CMOS45.multiplier(32, 32).energy_j == pytest.approx(3.1e-12, rel=0.05)
    assert CMOS45.multiplier(32, 32).area_m2 == pytest.approx(3495e-12, rel=0.3)
    assert CMOS45.sram(8 * 8192, 64).energy_j == pytest.approx(10e-12)


def test_memories_grow_as_their_root_up_to_a_bank_and_in_area_for_ever():
    bank = CMOS45.sram_bank_bits
    quarter, one, four = (CMOS45.sram(bank * f, 8) for f in (0.25, 1, 4))
    assert quarter.energy_j == pytest.approx(one.energy_j / 2)
    assert quarter.delay_s == pytest.approx(one.delay_s / 2)
    assert (four.energy_j, four.delay_s) == (one.energy_j, one.delay_s)
    assert four.area_m2 == pytest.approx(16 * quarter.area_m2)
    nothing = CMOS45.sram(0, 8)
    assert nothing.energy_j == nothing.area_m2 == nothing.delay_s == 0


def test_parts_in_one_cycle_add_up_and_the_slowest_sets_the_delay():
    both = together([Cost(1.0, 2.0, 3.0, "a"), Cost(10.0, 1.0, 5.0, "b")], source="c")
    assert both == Cost(11.0, 2.0, 8.0, "c")
    assert CMOS45.register(8) == CMOS45.flip_flop.times(8)
    assert CMOS45.adder(16).delay_s == pytest.approx(2 * CMOS45.adder(8).delay_s)


def test_every_number_has_a_source():
    for field in dataclasses.fields(CMOS45):
        cost = getattr(CMOS45, field.name)
        if isinstance(cost, Cost):
            words = cost.source
            assert "delay: assumed" in words and "area:" in words
            assert "recalled" in words or "derived" in words or "checked" in words


def test_costs_are_checked_and_replaced():
    for bad in (-1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="energy_j must be finite"):
            Cost(bad, 0.0, 0.0, "bad")
    with pytest.raises(ValueError, match="sram_bank_bits must be at least 1"):
        dataclasses.replace(CMOS45, sram_bank_bits=0)
    mine = dataclasses.replace(CMOS45, adder_bit=Cost(1e-15, 0.0, 0.0, "mine"))
    assert mine.adder(4).energy_j == 4e-15 and mine != CMOS45
    assert isinstance(hash(mine), int)
