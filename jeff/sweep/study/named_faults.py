"""The fault models by name, with what is needed to sweep them without knowing more."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jeff import base, faults, tree
from jeff.faults.mac_count import MacCount, conv_macs, site_macs
from jeff.program import Site
from jeff.sweep import checks

__all__ = ["FAULTS", "ONE", "Draw", "NamedFault", "named_fault"]

ONE = MacCount(1, 1)
"""What stands behind an element of a weight, which nothing computes."""


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
      make: ``make(rate, draw, count) -> FaultModel`` of an array; `rate` may be traced,
        `draw` says how faults are drawn, `count` is the `MacCount` behind one element
        (`ONE` for weights).
      hits: ``hits(rate, stored, count)``: faults expected per element of so many stored
        bits.
      most: Largest value of the number: 1 of a rate, infinite of a sigma.
      by_macs: Whether it needs the multiplications behind an element.
      by_range: Whether it takes a range from the array, so that every entry of a stack
        of layers must be an array of its own.
      settings: What else can be set, by name, with the type of a value.
      given: What was set.

    Examples:
      >>> FAULTS["bit-flip"].swept, FAULTS["bit-flip"].hits(1e-3, 32, ONE)
      ('rate per stored bit', 0.032)
    """

    name: str
    on: str
    swept: str
    rates: tuple[float, ...]
    make: Callable[..., base.FaultModel]
    hits: Callable[..., float]
    most: float = 1.0
    by_macs: bool = False
    by_range: bool = False
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)
    given: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)

    def count(self, site: Site) -> MacCount:
        """What `make` and `hits` are told of a site.

        Args:
          site: A site.

        Returns:
          Its multiplications for one output, those of an adder tree if its width was
          set; `ONE` if they do not matter.

        Raises:
          ValueError: If they matter and are not known.
        """
        width = self.given.get("tree_width")
        return site_macs(site, tree_width=width) if self.by_macs else ONE


_DECADES = (1e-7, 1e-6, 1e-5, 1e-4)
_PERCENT = (1e-3, 1e-2, 3e-2, 0.1)
_SIGMA = (0.05, 0.1, 0.2, 0.4)
_BITS = {"bits": int, "nonfinite": str, "bit_shares": tuple[float, ...]}


def _limited(model: Callable[..., base.FaultModel]) -> Callable[..., base.FaultModel]:
    return lambda rate, draw, count, **given: model(rate, **draw._asdict(), **given)


def _sigma(model: Callable[..., base.FaultModel]) -> Callable[..., base.FaultModel]:
    return lambda rate, draw, count: model(rate)


def _words(model: Callable[..., base.FaultModel]) -> Callable[..., base.FaultModel]:
    """Faults of stored bits, each at its share of the rate if shares are given."""

    def make(rate, draw, count, *, bit_shares=None, **given):
        if bit_shares is not None:
            shares = checks.rates("bit_shares", bit_shares)
            if not shares.size:
                raise ValueError("bit_shares must hold a share for each bit")
            rate = rate * shares.astype(np.float32)
        return model(rate, **draw._asdict(), **given)

    return make


def _mibb(rate, draw, count, *, tree_width=None, **given):
    conv_macs((1,), 1, tree_width=tree_width)  # checks it; `count` was made with it
    return faults.mibb(rate, **count._asdict(), **draw._asdict(), **given)


def _per_bit(rate, stored, count, *, bit_shares=None, **given):
    used = given.get("bits") or stored
    return rate * (used if bit_shares is None else sum(bit_shares[:used]))


def _per_cell(rate, stored, count, **given):
    return 2 * rate


def _per_narrow_cell(rate, stored, count, **given):
    cells = -(-(given.get("bits", 8) - 1) // given.get("cell_bits", 1))
    if given.get("reference_quirks"):
        rate = 0.1 * float(rate > 0)
    return 2 * cells * rate


def _per_output(rate, stored, count, **given):
    width = given.get("bits", 8)
    more = min(width - 1, count.accumulations.bit_length() - 1)
    p = float(faults.mac_fault_rate(rate, count.macs))
    return min(1.0, p * (width + more) / width)


def _per_element(rate, stored, count, **given):
    return rate


def _every_element(rate, stored, count):
    return float(rate > 0)


FAULTS = {
    f.name: f
    for f in (
        NamedFault(
            name="bit-flip", on="weights", swept="rate per stored bit",
            rates=_DECADES, make=_words(faults.bit_flip), hits=_per_bit,
            settings=_BITS,
        ),
        NamedFault(
            name="stuck-at", on="weights", swept="rate per stored bit",
            rates=_DECADES, make=_words(faults.stuck_at), hits=_per_bit,
            settings={"one_share": float, **_BITS},
        ),
        NamedFault(
            name="adsaf", on="weights", swept="rate per cell, two cells per weight",
            rates=_PERCENT, make=_limited(faults.adsaf), hits=_per_cell,
            by_range=True, settings={"saf1_share": float},
        ),
        NamedFault(
            name="adsaf-cells", on="weights", swept="rate per cell of a few bits",
            rates=_PERCENT, make=_limited(faults.adsaf_cells), hits=_per_narrow_cell,
            by_range=True,
            settings={
                "bits": int, "cell_bits": int, "saf1_share": float,
                "reference_quirks": bool,
            },
        ),
        NamedFault(
            name="lognormal", on="weights", swept="sigma of the factor's logarithm",
            rates=_SIGMA, make=_sigma(faults.lognormal), hits=_every_element,
            most=math.inf,
        ),
        NamedFault(
            name="reciprocal-normal", on="weights", swept="sigma of the divisor",
            rates=_SIGMA, make=_sigma(faults.reciprocal_normal), hits=_every_element,
            most=math.inf,
        ),
        NamedFault(
            name="mibb", on="features", swept="rate per multiplication",
            rates=_DECADES, make=_mibb, hits=_per_output, by_macs=True,
            by_range=True,
            settings={
                "bits": int, "tree_width": int, "activation_rate": float,
                "tile": tuple[int, ...], "max_value_mode": bool, "saturate": str,
            },
        ),
        NamedFault(
            name="fixed-point-flip", on="features", swept="rate per element",
            rates=_PERCENT, make=_limited(faults.fixed_point_flip),
            hits=_per_element, by_range=True, settings={"bits": int},
        ),
        NamedFault(
            name="gaussian", on="features", swept="sigma in units of the features",
            rates=_SIGMA, make=_sigma(faults.gaussian), hits=_every_element,
            most=math.inf,
        ),
        NamedFault(
            name="salt-and-pepper", on="features", swept="rate per element",
            rates=_PERCENT, make=_limited(faults.salt_and_pepper),
            hits=_per_element, by_range=True,
        ),
    )
}  # fmt: skip
"""The fault models by name."""


def named_fault(name: str, settings: Mapping[str, Any] | None = None) -> NamedFault:
    """The fault model called `name`.

    Args:
      name: A key of `FAULTS`; underscores may stand for hyphens.
      settings: Values of its `settings`, by name: arguments of its function in
        `jeff.faults` that a sweep does not choose by itself. Two have another meaning:
        ``bit_shares`` are the rates of the bits of a word, lowest first, as shares of
        the swept one, and ``tree_width`` is that of `jeff.faults.mibb_at_sites`.

    Returns:
      The entry, with `make` and `hits` for these settings.

    Raises:
      ValueError: If there is none, or it has no such setting; the message lists the
        nearest and all names. If a value does not fit.
      TypeError: If a value is of the wrong kind.

    Examples:
      >>> named_fault("salt_and_pepper").on
      'features'
      >>> cells = named_fault("adsaf-cells", {"bits": 8, "cell_bits": 4})
      >>> cells.hits(0.01, 32, ONE)  # two cells for each polarity
      0.04
      >>> named_fault("bitflip")
      Traceback (most recent call last):
        ...
      ValueError: there is no fault 'bitflip'; nearest: bit-flip, fixed-point-flip;
      known: bit-flip, stuck-at, adsaf, adsaf-cells, lognormal, reciprocal-normal, mibb,
      fixed-point-flip, gaussian, salt-and-pepper
    """
    found = FAULTS.get(name.replace("_", "-"))
    if found is None:
        raise ValueError(f"there is no fault {name!r}; {_known(name, FAULTS)}")
    given = dict(settings or {})
    for word in given:
        if word not in found.settings:
            known = _known(word, found.settings)
            raise ValueError(f"{found.name} has no setting {word!r}; {known}")
    if not given:
        return found
    make, hits = (functools.partial(f, **given) for f in (found.make, found.hits))
    try:
        make(0.0, Draw(1.0), ONE)  # refuses values early
    except (TypeError, ValueError) as error:
        raise type(error)(f"{found.name}: {error}") from None
    return dataclasses.replace(found, make=make, hits=hits, given=given)


def _known(word: str, names: Mapping[str, Any]) -> str:
    """Which names there are, the nearest first."""
    near = tree.nearest(word, names)
    near = near if near.startswith("nearest") else ""  # else how many there are
    known = f"known: {', '.join(names)}" if names else "it has none"
    return "; ".join(filter(None, (near, known)))
