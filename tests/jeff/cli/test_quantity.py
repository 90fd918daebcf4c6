import pytest

from jeff.cli.quantity import interval, quantity


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


def test_an_interval_has_the_scale_of_its_value():
    assert interval(900.0, 1100.0, 1000.0, "bytes") == "[0.9, 1.1]"
    assert interval(-0.01, 0.03, 0.01, "fraction") == "[-1, 3]"
