"""How numbers are printed: records keep SI units and fractions, people read these."""

import math

__all__ = ["interval", "quantity", "split"]

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


def split(value: float, unit: str) -> tuple[str, str]:
    """`quantity` as number and unit apart.

    Examples:
      >>> split(0.5, "fraction")
      ('50', '%')
    """
    factor, suffix = _scale(value, unit)
    return _digits(value / factor), suffix


def interval(low: float | None, high: float | None, value: float, unit: str) -> str:
    """An interval in the scale of its value, without repeating the unit.

    Examples:
      >>> interval(0.91, 0.94, 0.92, "fraction")
      '[91, 94]'
      >>> interval(None, None, 1.0, "")
      ''
    """
    if low is None or high is None:
        return ""
    factor, _ = _scale(value, unit)
    return f"[{_digits(low / factor)}, {_digits(high / factor)}]"


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
