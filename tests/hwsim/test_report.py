import pytest

from hwsim import Quantity, Report, text_table


@pytest.fixture
def report():
    energy = Quantity("energy_j", 8.0, (("adders", 2.0), ("memory", 6.0)))
    idle = Quantity("leakage_w", 0.0, (("all", 0.0),))
    return Report("demo", (energy, idle, Quantity("cycles", 5)), notes=("a note",))


def test_values_shares_and_rows(report):
    assert report["energy_j"] == 8 and report["cycles"] == 5
    assert report.share("energy_j", "memory") == 0.75
    assert report.share("leakage_w", "all") == 0
    assert report.rows()[1] == ("energy_j", "adders", 2.0, "J", 0.25)
    assert [row.part for row in report.rows()] == [
        "",
        "adders",
        "memory",
        "",
        "all",
        "",
    ]
    assert str(report).splitlines()[0] == "demo"
    assert str(report).splitlines()[-1] == "a note"


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("area_m2", "m^2"),
        ("clock_hz", "Hz"),
        ("latency_s", "s"),
        ("wire_ohm", "ohm"),
        ("cycles", ""),
        ("s", ""),
        ("buffer_words", ""),
    ],
)
def test_the_unit_is_read_from_the_name(name, unit):
    assert Quantity(name, 1.0).unit == unit


def test_names_that_are_not_there_are_listed(report):
    with pytest.raises(KeyError, match=r"no quantity 'area_m2'; .*'energy_j'"):
        report["area_m2"]
    with pytest.raises(KeyError, match=r"no part 'wires'.*'adders', 'memory'"):
        report.share("energy_j", "wires")


def test_quantities_are_checked():
    with pytest.raises(ValueError, match="add up to 2.0, not to 3.0"):
        Quantity("energy_j", 3.0, (("a", 2.0),))
    with pytest.raises(ValueError, match="not finite"):
        Quantity("energy_j", float("nan"))
    with pytest.raises(ValueError, match="two parts of one name"):
        Quantity("energy_j", 2.0, (("a", 1.0), ("a", 1.0)))
    with pytest.raises(ValueError, match="two quantities of one name"):
        Report("twice", (Quantity("cycles", 1.0), Quantity("cycles", 2.0)))
    with pytest.raises(ValueError, match="does not have 2 entries"):
        text_table(("a", "b"), [("1",)])
