"""Which way every random leaf is drawn in a mode, and where a mode would be wrong."""

import math
from collections.abc import Mapping, Set
from typing import NamedTuple

from jeff.dm_bnn.levels import Levels
from jeff.program.site import Site

__all__ = ["MODES", "Ways", "ways_of"]

MODES = ("naive", "hybrid", "dm", "best", "lrt", "flipout", "mean")


class Ways(NamedTuple):
    """How a program's voters are drawn.

    Attributes:
      sites: By site, ``"scale_location"``, ``"dm"``, ``"lrt"``, ``"flipout"`` or
        ``"mean"``.
      whole: By leaf that is drawn whole before the program runs, why.
    """

    sites: Mapping[str, str]
    whole: Mapping[str, str]

    @property
    def draws(self) -> bool:
        """Whether anything is drawn; if not, the mean stands for every weight."""
        return bool(self.whole) or any(way != "mean" for way in self.sites.values())


def ways_of(
    mode: str,
    levels: Levels,
    sites: tuple[Site, ...],
    voters: tuple[int, ...],
    *,
    examples: Set[int],
    approximate: bool,
    shared: bool = False,
) -> Ways:
    """The ways of a mode.

    Args:
      mode: One of `MODES`.
      levels: The program's.
      sites: Its sites.
      voters: Branches at each level.
      examples: Sizes of axis 0 of the program's inputs, one of which must be that of
        a site whose rows are examples.
      approximate: Whether a mode may change the joint distribution of outputs.
      shared: Whether all branches of a level have the same weights.

    Returns:
      The ways.

    Raises:
      ValueError: If the mode is unknown, or would change a distribution and
        `approximate` is false; the message says where and why.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {MODES}, got {mode!r}")
    sites = tuple(s for s in sites if any(n in levels.leaves for n in s.leaves))
    if mode == "mean":
        return Ways({s.name: "mean" for s in sites}, {})
    if mode in ("lrt", "flipout"):
        return _per_input(mode, levels, sites, examples, approximate)
    ways, whole = {}, {}
    for name, leaf in levels.leaves.items():
        if not leaf.matrix:
            whole[name] = leaf.reason or "not contracted at its site"
    for site in sites:
        if site.leaf in levels.leaves and site.leaf not in whole:
            ways[site.name] = _exact(mode, site, levels, voters, shared)
    return Ways(ways, whole)


def _exact(
    mode: str, site: Site, levels: Levels, voters: tuple[int, ...], shared: bool
) -> str:
    """DM or the standard way: the same voters, other costs."""
    level, depth = levels.leaves[site.leaf].level, levels.depth[site.name]
    fresh = level == depth and not site.trips  # inputs do not know these voters yet
    branches = voters[level - 1] if level <= len(voters) else 1
    rows = math.prod(site.x_shape[:-1])
    if shared:  # the rows of all branches above meet the same weights
        rows *= math.prod(voters[: level - 1])
    cheaper = rows * (branches + 2) < branches * (rows + 1)
    chosen = {
        "naive": False,
        "hybrid": fresh and depth == 1,
        "dm": True,
        "best": fresh and cheaper,
    }[mode]
    return "dm" if chosen else "scale_location"


def _per_input(mode: str, levels: Levels, sites, examples, approximate: bool) -> Ways:
    """Local reparameterisation and flipout: noise per input, not per weight."""
    ways, whole, wrong = {}, {}, {}
    uses: dict[str, int] = {}
    for site in sites:
        loops = zip(site.trips, site.strides, strict=True)
        turns = math.prod(2 if t is None else t for t, stride in loops if stride)
        uses[site.leaf] = uses.get(site.leaf, 0) + turns
    for name, leaf in levels.leaves.items():
        kinds = {s.kind for s in sites if name in s.leaves}
        only_conv = kinds == {"conv"} and leaf.reason == "used in a conv"
        if not leaf.direct and not only_conv:
            whole[name] = leaf.reason
    for site in sites:
        if site.leaf not in levels.leaves or site.leaf in whole:
            continue
        ways[site.name] = mode
        rows = site.x_shape[:-1] if site.kind == "dot" else ()
        if mode == "lrt" and uses[site.leaf] > 1:
            wrong[site.name] = "its weight is used more than once"
        elif mode == "lrt" and site.kind == "conv":
            wrong[site.name] = "a convolution uses one kernel at all positions"
        elif mode == "lrt" and math.prod(rows[1:]) > 1:
            wrong[site.name] = (
                f"its input {site.x_shape} has several rows per example, which share "
                "one weight"
            )
        elif rows and rows[0] > 1 and rows[0] not in examples:
            wrong[site.name] = (
                f"its input {site.x_shape} does not have the examples of x on axis 0, "
                f"which are {' or '.join(map(str, sorted(examples)))}"
            )
    if wrong and not approximate:
        lines = "; ".join(f"{name!r}: {why}" for name, why in wrong.items())
        raise ValueError(
            f"mode={mode!r} would change the distribution of the outputs ({lines}); "
            "take mode='best', or approximate=True to keep only the variance of each "
            "entry"
        )
    return Ways(ways, whole)
