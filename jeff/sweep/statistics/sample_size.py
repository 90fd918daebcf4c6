"""How many faults to inject for a margin of error, before anything is known."""

import math
from fractions import Fraction

from scipy import special

__all__ = ["sample_size"]


def sample_size(
    margin: float,
    *,
    level: float = 0.95,
    population: int | None = None,
    proportion: float = 0.5,
) -> int:
    """Number of random faults that fixes a proportion to a margin of error.

    ``n = N / (1 + e^2 (N - 1) / (t^2 p (1 - p)))``, rounded up, for margin `e`,
    population `N` and guessed proportion `p`; without a population its limit
    ``t^2 p (1 - p) / e^2``. `t` is the normal quantile of `level`, rounded up to three
    decimals as in the tables that published campaigns used (1.960, 2.576).

    The rule is for the worst case and looks at no outcome; `jeff.sweep.Margin` stops
    earlier where events are rare.

    Args:
      margin: Half the width of the interval wanted, a fraction in (0, 1).
      level: Confidence level in (0, 1).
      population: Number of faults there are, drawn without repetition; ``None``:
        infinite.
      proportion: Guess of the proportion, in (0, 1); 0.5 is the worst case.

    Returns:
      The number, never more than the population.

    Raises:
      ValueError: If a fraction is not in (0, 1) or the population is less than 1.

    Examples:
      >>> sample_size(0.01), sample_size(0.01, level=0.99)
      (9604, 16590)
      >>> sample_size(0.01, population=8000)
      4365

    References:
      R. Leveugle et al., "Statistical fault injection: quantified error and
      confidence", DATE 2009, equation 4.
    """
    for name, value in (("margin", margin), ("level", level)):
        if not 0 < value < 1:
            raise ValueError(f"{name} must be in (0, 1): {name}={value!r}")
    if not 0 < proportion < 1:
        raise ValueError(f"proportion must be in (0, 1): {proportion=}")
    if population is not None and population < 1:
        raise ValueError(f"population must be at least 1: {population=}")
    # Fractions: 1.96^2 / 0.001^2 in floating point would be rounded up past 960,400.
    quantile = float(special.ndtri(0.5 + level / 2))
    t = Fraction(math.ceil(1000 * quantile), 1000)
    e, p = Fraction(str(float(margin))), Fraction(str(float(proportion)))
    unlimited = t * t * p * (1 - p) / (e * e)
    if population is None:
        return math.ceil(unlimited)
    return math.ceil(population / (1 + Fraction(population - 1) / unlimited))
