"""The fault models by name, with what is needed to sweep them without knowing more."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from jeff import base, faults, tree

__all__ = ["FAULTS", "Draw", "NamedFault", "named_fault"]


class Draw(NamedTuple):
    """How the faults of a sweep are drawn.

    Attributes:
      max_rate: The largest rate.
      method: The sampler, or ``None``: chosen for every array by its size.
    """

    max_rate: float
    method: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class NamedFault:
    """A fault model with one number that is swept.

    Attributes:
      name: Its function's name in `jeff.faults`, with hyphens.
      on: What it hits unless said otherwise, ``"weights"`` or ``"features"``.
      swept: What the number is.
      rates: Numbers that make a useful curve.
      make: ``make(rate, draw, macs) -> FaultModel`` of an array; `rate` may be traced,
        `draw` says how faults are drawn, `macs` is the number of multiplications behind
        one element (1 for weights).
      hits: ``hits(rate, bits, macs)``: faults expected per element of so many bits.

    Examples:
      >>> FAULTS["bit-flip"].swept, FAULTS["bit-flip"].hits(1e-3, 32, 1)
      ('rate per stored bit', 0.032)
    """

    name: str
    on: str
    swept: str
    rates: tuple[float, ...]
    make: Callable[[Any, "Draw", int], base.FaultModel]
    hits: Callable[[float, int, int], float]


_DECADES = (1e-7, 1e-6, 1e-5, 1e-4)
_PERCENT = (1e-3, 1e-2, 3e-2, 0.1)
_SIGMA = (0.05, 0.1, 0.2, 0.4)


def _limited(model: Callable[..., base.FaultModel]) -> Callable[..., base.FaultModel]:
    return lambda rate, draw, macs: model(rate, **draw._asdict())


def _sigma(model: Callable[..., base.FaultModel]) -> Callable[..., base.FaultModel]:
    return lambda rate, draw, macs: model(rate)


def _mibb(rate, draw, macs):
    return faults.mibb(rate, macs=macs, **draw._asdict())


def _per_bit(rate, bits, macs):
    return rate * bits


def _per_element(rate, bits, macs):
    return rate


def _every_element(rate, bits, macs):
    return float(rate > 0)


FAULTS = {
    f.name: f
    for f in (
        NamedFault(
            name="bit-flip", on="weights", swept="rate per stored bit",
            rates=_DECADES, make=_limited(faults.bit_flip), hits=_per_bit,
        ),
        NamedFault(
            name="stuck-at", on="weights", swept="rate per stored bit",
            rates=_DECADES, make=_limited(faults.stuck_at), hits=_per_bit,
        ),
        NamedFault(
            name="adsaf", on="weights", swept="rate per cell, two cells per weight",
            rates=_PERCENT, make=_limited(faults.adsaf),
            hits=lambda rate, bits, macs: 2 * rate,
        ),
        NamedFault(
            name="adsaf-cells", on="weights",
            swept="rate per one-bit cell, 14 cells per weight",
            rates=_PERCENT, make=_limited(faults.adsaf_cells),
            hits=lambda rate, bits, macs: 14 * rate,
        ),
        NamedFault(
            name="lognormal", on="weights", swept="sigma of the factor's logarithm",
            rates=_SIGMA, make=_sigma(faults.lognormal), hits=_every_element,
        ),
        NamedFault(
            name="reciprocal-normal", on="weights", swept="sigma of the divisor",
            rates=_SIGMA, make=_sigma(faults.reciprocal_normal), hits=_every_element,
        ),
        NamedFault(
            name="mibb", on="features", swept="rate per multiplication",
            rates=_DECADES, make=_mibb,
            hits=lambda rate, bits, macs: float(faults.mac_fault_rate(rate, macs)),
        ),
        NamedFault(
            name="fixed-point-flip", on="features", swept="rate per element",
            rates=_PERCENT, make=_limited(faults.fixed_point_flip), hits=_per_element,
        ),
        NamedFault(
            name="gaussian", on="features", swept="sigma in units of the features",
            rates=_SIGMA, make=_sigma(faults.gaussian), hits=_every_element,
        ),
        NamedFault(
            name="salt-and-pepper", on="features", swept="rate per element",
            rates=_PERCENT, make=_limited(faults.salt_and_pepper), hits=_per_element,
        ),
    )
}  # fmt: skip
"""The fault models by name."""


def named_fault(name: str) -> NamedFault:
    """The fault model called `name`.

    Args:
      name: A key of `FAULTS`; underscores may stand for hyphens.

    Returns:
      The entry.

    Raises:
      ValueError: If there is none; the message lists the nearest and all names.

    Examples:
      >>> named_fault("salt_and_pepper").on
      'features'
      >>> named_fault("bitflip")
      Traceback (most recent call last):
        ...
      ValueError: there is no fault 'bitflip'; nearest: bit-flip, fixed-point-flip;
      known: bit-flip, stuck-at, adsaf, adsaf-cells, lognormal, reciprocal-normal, mibb,
      fixed-point-flip, gaussian, salt-and-pepper
    """
    found = FAULTS.get(name.replace("_", "-"))
    if found is None:
        near = tree.nearest(name, FAULTS)
        near = near if near.startswith("nearest") else ""  # else how many there are
        hint = "; ".join(filter(None, (near, f"known: {', '.join(FAULTS)}")))
        raise ValueError(f"there is no fault {name!r}; {hint}")
    return found
