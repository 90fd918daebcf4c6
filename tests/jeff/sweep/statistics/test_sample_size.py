import pytest

from jeff.sweep import sample_size


@pytest.mark.parametrize(
    ("level", "margin", "expected"),
    [
        (0.95, 0.01, 9_604),
        (0.99, 0.01, 16_590),
        (0.95, 0.001, 960_400),
        (0.99, 0.001, 1_658_944),
    ],
)
def test_sizes_that_campaigns_quote_for_infinite_populations(level, margin, expected):
    assert sample_size(margin, level=level) == expected
    # A population of 10^15 is nearly infinite, and never asks for more.
    near = sample_size(margin, level=level, population=10**15)
    assert expected - 1 <= near <= expected


def test_finite_population_by_hand():
    # 8000 / (1 + 1e-4 * 7999 / 0.9604) = 4364.75...
    assert sample_size(0.01, population=8000) == 4365
    assert sample_size(0.01, population=1) == 1
    assert sample_size(1e-6, population=500) == 500


def test_a_guess_of_the_proportion_saves_injections():
    # 1.96^2 * 0.01 * 0.99 / 1e-4 = 380.3...
    assert sample_size(0.01, proportion=0.01) == 381


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"margin": 0.0}, "margin=0.0"),
        ({"margin": 0.1, "level": 1.0}, "level=1.0"),
        ({"margin": 0.1, "proportion": 1.0}, "proportion=1.0"),
        ({"margin": 0.1, "population": 0}, "population=0"),
    ],
)
def test_errors_name_the_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        sample_size(**arguments)
