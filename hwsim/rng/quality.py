"""The quality of a generator: all checks of `hwsim.rng.checks`, side by side."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from hwsim.report import text_table
from hwsim.rng.checks import (
    Check,
    autocorrelation,
    chi_square,
    energy_dispersion,
    ks_distance,
    moments,
)

__all__ = ["assess", "compare", "worst"]


def assess(
    x: Any, *, lags: Sequence[int] = (1, 2, 4, 8, 16), bins: int = 64, block: int = 256
) -> tuple[Check, ...]:
    """All checks of one sequence.

    Args:
      x: Numbers in the order in which they were drawn, ``[n]``.
      lags: As in `autocorrelation`.
      bins: As in `chi_square`.
      block: As in `energy_dispersion`.

    Returns:
      The checks.

    Raises:
      ValueError: As the checks do.

    Examples:
      >>> import numpy as np
      >>> x = np.random.default_rng(0).normal(size=10_000)
      >>> len(assess(x)), abs(worst(assess(x)).score) < 4
      (17, True)
    """
    return (
        *moments(x),
        ks_distance(x),
        chi_square(x, bins),
        *autocorrelation(x, lags),
        energy_dispersion(x, block),
    )


def worst(checks: Sequence[Check]) -> Check:
    """The check with the largest score in magnitude.

    Args:
      checks: At least one.

    Returns:
      It.

    Examples:
      >>> worst(moments([1.0, 1.0, 1.0, 1.0])).name
      'mean'
    """
    return max(checks, key=lambda check: abs(check.score))


def compare(
    generators: Mapping[str, Callable[[jax.Array, int], jax.Array]],
    key: jax.Array,
    n: int,
    **options: Any,
) -> str:
    """The scores of generators side by side, beside those of `jax.random.normal`.

    Args:
      generators: Draw functions by name.
      key: A JAX key, the same for all.
      n: Numbers per generator, drawn at once.
      **options: Of `assess`.

    Returns:
      A table: a line per check, a column per generator. Scores within 4 are what a
      good generator shows; the last line is the largest in magnitude.

    Raises:
      ValueError: As `assess` does.

    Examples:
      >>> from hwsim.rng import clt
      >>> rough = clt.normal(clt.Clt(terms=2))
      >>> table = compare({"two terms": rough}, jax.random.key(0), 10_000, lags=[1])
      >>> print(*table.splitlines()[:5], sep="\\n")
      check              jax.random.normal  two terms
      mean               -0.3               -1.8
      variance           1.7                -1.7
      skewness           0.0                -0.8
      kurtosis           1.0                -7.0
    """
    drawn = {"jax.random.normal": jax.random.normal(key, (n,))}
    for name, normal_fn in generators.items():
        drawn[name] = jax.jit(normal_fn, static_argnums=1)(key, n)
    columns = {name: assess(x, **options) for name, x in drawn.items()}
    checks = next(iter(columns.values()))
    rows = [
        [check.name, *(f"{column[i].score:.1f}" for column in columns.values())]
        for i, check in enumerate(checks)
    ]
    largest = [f"{abs(worst(column).score):.1f}" for column in columns.values()]
    return text_table(["check", *columns], [*rows, ["largest", *largest]])
