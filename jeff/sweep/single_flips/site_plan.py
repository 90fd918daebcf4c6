"""Which images of a site-wise campaign get their fault at which site."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jeff.faults.fixed_point import check_bits
from jeff.faults.stored_words import stored_bits
from jeff.faults.where import is_product
from jeff.program import sites as find_sites
from jeff.program import stages
from jeff.sweep.campaigns.batches import one_example
from jeff.sweep.checks import positive

__all__ = ["SHARES", "SitePlan", "plan_sites"]

SHARES = ("features", "equal")
"""How images may be shared out: by the size of feature maps, or equally."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SitePlan:
    """Of every `period` consecutive images, how many get their fault at which site.

    Attributes:
      sites: Names of the sites, in program order.
      counts: Images of each site in a period, at least 1.
      features: Elements of each site's output for one image.
      bits: Bits of an element that may flip, per site.
      macs: Multiplications that are left to do behind each site, for one image.
      total_macs: Multiplications of the whole program, for one image.
      fixed_point: Width of the codes whose bits flip; ``None``: bits of the dtype.

    Examples:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> def mlp(p, x):
      ...     return jax.nn.relu(x @ p["up"]) @ p["down"]
      >>> params = {"up": jnp.ones((4, 12)), "down": jnp.ones((12, 4))}
      >>> plan = plan_sites(mlp, params, np.ones((9, 4), np.float32), period=8)
      >>> print(plan.explain())
      1 fault per image, 8 images at a time shared out over 2 sites
      - up: 6 images, 12 features of 32 bits
      - down: 2 images, 4 features of 32 bits
      a faulty image redoes 38 % of the multiplications
    """

    sites: tuple[str, ...]
    counts: tuple[int, ...]
    features: tuple[int, ...]
    bits: tuple[int, ...]
    macs: tuple[int, ...]
    total_macs: int
    fixed_point: int | None = None

    @property
    def period(self) -> int:
        """Images after which the pattern repeats."""
        return sum(self.counts)

    @property
    def share_redone(self) -> float:
        """Multiplications of a faulty image, as a share of the whole program's."""
        work = sum(n * m for n, m in zip(self.counts, self.macs, strict=True))
        return work / (self.period * self.total_macs)

    def explain(self) -> str:
        """The plan in words, a line per site."""
        rows = zip(self.sites, self.counts, self.features, self.bits, strict=True)
        return "\n".join(
            [
                f"1 fault per image, {self.period} images at a time shared out over "
                f"{len(self.sites)} sites",
                *(
                    f"- {name}: {count} images, {size} features of {bits} bits"
                    for name, count, size, bits in rows
                ),
                f"a faulty image redoes {100 * self.share_redone:.0f} % of the "
                "multiplications",
            ]
        )


def plan_sites(
    apply: Callable[..., Any],
    params: Any,
    inputs: Any,
    *,
    sites: Sequence[str] | None = None,
    share: "str | Mapping[str, int]" = "features",
    period: int = 64,
    fixed_point: int | None = None,
) -> SitePlan:
    """Shares out images over the sites whose outputs are to be hit.

    Args:
      apply: ``apply(params, *inputs)``; it treats every example by itself.
      params: Params tree; leaves may be stored.
      inputs: An array ``[examples, ...]`` or a tuple of them; shapes suffice.
      sites: Names of sites outside loops; ``None``: all products and convolutions.
      share: ``"features"``: in proportion to the size of a site's output, as upsets
        hit a feature memory, but at least one; ``"equal"``; or images by site, which
        makes `sites` and `period` superfluous.
      period: Images after which the pattern repeats, at least one per site.
      fixed_point: Width, 2 to 16, of two's complement codes whose bits flip; ``None``:
        the bits of the output's dtype.

    Returns:
      The plan.

    Raises:
      ValueError: If there is no such site, it lies in a loop, `share` is no such word
        or has a count below 1, `period` is too short, or `fixed_point` out of range.
      TypeError: If an output has no bits to flip.

    Examples:
      See `SitePlan`.
    """
    one = one_example(inputs)
    if isinstance(share, Mapping):
        sites = list(share)
    found = find_sites(apply, params, *one)
    if sites is None:
        sites = [s.name for s in found if is_product(s.name, s)]
    if not sites:
        raise ValueError("sites is empty: there is nothing to hit")
    cut = stages.stages(apply, tuple(sites), params, *one)
    outputs = [values[0].aval for values in cut.live]
    features = tuple(math.prod(a.shape) for a in outputs)
    if fixed_point is None:
        bits = tuple(stored_bits(a) for a in outputs)
    else:
        check_bits(fixed_point)
        bits = (fixed_point,) * len(outputs)
    macs = {s.name: s.macs for s in found}
    behind = tuple(
        sum(macs[name] for piece in cut.pieces[i:] for name in piece.sites())
        for i in range(1, len(cut.pieces))
    )
    return SitePlan(
        sites=cut.sites,
        counts=_counts(cut.sites, features, share, period),
        features=features,
        bits=bits,
        macs=behind,
        total_macs=sum(macs.values()),
        fixed_point=fixed_point,
    )


def _counts(sites, features, share, period) -> tuple[int, ...]:
    if isinstance(share, Mapping):
        return tuple(positive(f"share[{name!r}]", share[name]) for name in sites)
    if share not in SHARES:
        raise ValueError(f"share must be one of {SHARES} or counts, got {share!r}")
    if positive("period", period) < len(sites):
        raise ValueError(f"period={period} is shorter than the {len(sites)} sites")
    weights = np.ones(len(sites)) if share == "equal" else np.asarray(features, float)
    ideal = weights / weights.sum() * period
    counts = np.maximum(np.floor(ideal), 1).astype(int)
    while counts.sum() < period:  # largest remainder
        counts[np.argmax(ideal - counts)] += 1
    while counts.sum() > period:  # too many small sites were given one
        counts[np.argmax(np.where(counts > 1, counts - ideal, -np.inf))] -= 1
    return tuple(int(n) for n in counts)
