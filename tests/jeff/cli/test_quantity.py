import pytest

from jeff.cli.quantity import estimate, quantity


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "", "0"),
        (3, "", "3"),
        (1234567, "", "1,234,567"),
        (0.123456, "", "0.1235"),
        (12.3456, "", "12.35"),
        (123456.7, "", "123,457"),
        (1.5e-7, "", "1.5e-07"),
        (-0.25, "nats", "-0.25 nats"),
        (1e20, "", "1e+20"),
        (0.5, "fraction", "50 %"),
        (0.99994, "fraction", "99.99 %"),
        (0, "fraction", "0 %"),
        (999, "bytes", "999 B"),
        (4_020_000_000, "bytes", "4.02 GB"),
        (0.0123, "s", "12.3 ms"),
        (65.2, "s", "65.2 s"),
        (2.5e-13, "J", "250 fJ"),
        (0, "J", "0 J"),
        (1e-9, "m^2", "1e-09 m^2"),
        ("2.84x (abstract)", "", "2.84x (abstract)"),
        (None, "s", "–"),
    ],
)
def test_quantity(value, unit, text):
    assert quantity(value, unit) == text


@pytest.mark.parametrize(
    ("value", "low", "high", "unit", "text"),
    [
        (1000.0, 900.0, 1100.0, "bytes", ("1.000", "kB", "[0.900, 1.100]")),
        (0.01, -0.01, 0.03, "fraction", ("1.00", "%", "[-1.00, 3.00]")),
        (0.0222, -0.01106, 0.0814, "nats", ("0.0222", "nats", "[-0.0111, 0.0814]")),
        (-0.00001, -0.2, 0.3, "", ("0.000", "", "[-0.200, 0.300]")),  # no minus zero
        (54321.0, 41234.0, 65432.0, "", ("54,300", "", "[41,200, 65,400]")),
        (1.0, 1.0, 1.0, "fraction", ("100", "%", "[100, 100]")),
        (0.5, 0.5 - 1e-15, 0.5 + 1e-15, "", ("0.5", "", "[0.5, 0.5]")),
        (2.0, None, None, "s", ("2", "s", "")),
    ],
)
def test_an_estimate_has_the_digits_its_interval_supports(value, low, high, unit, text):
    assert estimate(value, low, high, unit) == text
