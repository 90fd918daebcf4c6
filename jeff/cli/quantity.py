"""How numbers are printed: records keep SI units and fractions, people read these."""

import math

__all__ = ["estimate", "quantity"]

_PREFIXES = (
    (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""),
    (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"), (1e-12, "p"), (1e-15, "f"), (1e-18, "a"),
)  # fmt: skip
_PREFIXED = {"s", "J", "W", "V", "A", "Hz", "ohm", "S", "F"}


def quantity(value: float | str | None, unit: str = "") -> str:
    """A value with its unit, four digits, fractions as percent.

    Args:
      value: A number; text is returned as it is, ``None`` as a dash.
      unit: As in `jeff.evaluate.Measure`.

    Returns:
      Text for a table.

    Examples:
      >>> quantity(0.92841, "fraction"), quantity(1234567, "bytes"), quantity(2e-9, "J")
      ('92.84 %', '1.235 MB', '2 nJ')
      >>> quantity(1500), quantity(None), quantity(0.25, "nats")
      ('1,500', '–', '0.25 nats')
    """
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    factor, suffix = _scale(value, unit)
    return f"{_digits(value / factor)} {suffix}".rstrip()


def estimate(
    value: float, low: float | None, high: float | None, unit: str = ""
) -> tuple[str, str, str]:
    """A value and its interval, rounded to what the interval's width supports.

    Args:
      value: The estimate.
      low: Lower end of its interval, or ``None``.
      high: Upper end, or ``None``.
      unit: As in `jeff.evaluate.Measure`.

    Returns:
      Number, unit and interval. The ends are in the unit of the number; three digits
      of the width are kept. Without an interval the number is that of `quantity`.

    Examples:
      >>> estimate(0.95123, 0.941, 0.9613, "fraction")
      ('95.12', '%', '[94.10, 96.13]')
      >>> estimate(0.0043209, 0.0003211, 0.0083211, "nats")
      ('0.00432', 'nats', '[0.00032, 0.00832]')
      >>> estimate(1_310_720, None, None, "bytes")
      ('1.311', 'MB', '')
    """
    factor, suffix = _scale(value, unit)
    if low is None or high is None:
        return _digits(value / factor), suffix, ""
    width = (high - low) / factor
    if width == 0:
        number = _digits(value / factor)
        return number, suffix, f"[{number}, {number}]"
    decimals = 2 - math.floor(math.log10(width))
    if decimals > 9:  # as narrow as that only by rounding of the machine
        number, *ends = (_digits(x / factor) for x in (value, low, high))
    else:
        # `z` drops the sign of what is rounded to zero.
        number, *ends = (
            f"{round(x / factor, decimals):z,.{max(decimals, 0)}f}"
            for x in (value, low, high)
        )
    return number, suffix, f"[{ends[0]}, {ends[1]}]"


def _scale(value: float, unit: str) -> tuple[float, str]:
    if unit == "fraction":
        return 0.01, "%"
    if unit == "bytes":
        for factor, prefix in _PREFIXES[:4]:
            if abs(value) >= factor:
                return factor, f"{prefix}B"
        return 1.0, "B"
    if unit in _PREFIXED and value:
        for factor, prefix in _PREFIXES:
            if abs(value) >= factor:
                return factor, prefix + unit
    return 1.0, unit


def _digits(value: float) -> str:
    if value == 0:
        return "0"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) >= 1e4:
        return f"{value:,.0f}" if abs(value) < 1e15 else f"{value:.4g}"
    text = f"{value:.{max(0, 3 - math.floor(math.log10(abs(value))))}f}"
    return f"{value:.3g}" if abs(value) < 1e-4 else text.rstrip("0").rstrip(".")
