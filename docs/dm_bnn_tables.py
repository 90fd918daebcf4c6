"""What faults do to a Bayesian network, in a few sentences of its study's record."""

from typing import Any

from scipy import special

from jeff.cli.quantity import estimate, quantity

__all__ = ["dm_bnn_summary"]

Measures = dict[str, dict[str, Any]]
_GAIN = "faulty_accuracy_gain."
_PARTS = {
    "only_means": "flips of the means alone leave",
    "only_stds": "of the standard deviations alone",
    "one_pass": "one pass with the hit means has",
}


def dm_bnn_summary(record: dict[str, Any]) -> str:
    """At which rates of bit flips the Bayesian network differs from its twin.

    Args:
      record: Made by ``jeff run dm-bnn``.

    Returns:
      Markdown. Differences are told by Student's t intervals that hold for all rates
      together (95 %, Bonferroni); intervals in brackets are for one rate.

    Examples:
      >>> def measure(name, value, width):
      ...     ends = {"low": value - width, "high": value + width, "trials": 100}
      ...     return {"name": name, "value": value, "unit": "fraction", **ends}
      >>> record = {"preset": "full", "seed": 0, "device": "cpu x 1", "versions": {},
      ...     "measures": [measure("faulty_accuracy.bayesian.1e-4", 0.6, 0.05),
      ...         measure("faulty_accuracy.deterministic.1e-4", 0.5, 0.08),
      ...         measure("faulty_accuracy_gain.1e-4", 0.1, 0.04),
      ...         measure("faulty_accuracy_gain.1e-3", 0.01, 0.04)]}
      >>> print(dm_bnn_summary(record).partition("Made")[0].strip())
      With 1e-4 of all stored bits flipped the Bayesian network reads 60.0 % [55.0,
      65.0] of the digits right, its twin 50.0 % [42.0, 58.0]: 10.00 % [6.00, 14.00]
      more. At 1e-3 no difference is shown.
    """
    found = {m["name"]: m for m in record["measures"]}
    rates = [n.removeprefix(_GAIN) for n in found if n.startswith(_GAIN)]
    shown = [r for r in rates if _differs(found[_GAIN + r], len(rates))]
    said = [_at(found, rate) for rate in shown]
    if others := [r for r in rates if r not in shown]:
        *most, last = others
        listed = f"{', '.join(most)} and {last}" if most else last
        said.append(f"At {listed} no difference is shown.")
    versions = ", ".join(f"{name} {v}" for name, v in record["versions"].items())
    command = f"jeff run dm-bnn --preset {record['preset']} --seed {record['seed']}"
    made = f"Made by `{command}` on {record['device']} ({versions}); intervals 95 %."
    return f"{' '.join(said)}\n\n{made}"


def _differs(m: dict[str, Any], comparisons: int) -> bool:
    """Whether 0 is outside of the interval, widened for so many comparisons."""
    freedom = m["trials"] - 1
    one, all_of_them = (
        special.stdtrit(freedom, 1 - 0.025 / n) for n in (1, comparisons)
    )
    half = (m["high"] - m["low"]) / 2 * all_of_them / one
    return abs(m["value"]) > half


def _at(found: Measures, rate: str) -> str:
    own, twin = (
        _text(found[f"faulty_accuracy.{n}.{rate}"])
        for n in ("bayesian", "deterministic")
    )
    gain = found[_GAIN + rate]
    word = "more" if gain["value"] > 0 else "fewer"
    size = gain if gain["value"] > 0 else _turned(gain)
    said = (
        f"With {rate} of all stored bits flipped the Bayesian network reads {own} of "
        f"the digits right, its twin {twin}: {_text(size)} {word}"
    )
    parts = [
        f"{words} {quantity(round(found[name]['value'], 3), 'fraction')}"
        for part, words in _PARTS.items()
        if (name := f"faulty_accuracy.{part}.{rate}") in found
    ]
    return f"{said} ({', '.join(parts)})." if parts else f"{said}."


def _turned(m: dict[str, Any]) -> dict[str, Any]:
    return m | {"value": -m["value"], "low": -m["high"], "high": -m["low"]}


def _text(m: dict[str, Any]) -> str:
    number, suffix, ends = estimate(m["value"], m["low"], m["high"], m["unit"])
    return " ".join(part for part in (number, suffix, ends) if part)
