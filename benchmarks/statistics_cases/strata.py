"""Campaigns of strata and by importance, whose truth is known.

Forty strata with rates that are given; and the net of the page on statistics, all of
whose faults are tried first. Injections into a kind of faults are independent draws
with its event rate, which is what an injection of a uniform fault of that kind is.
"""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from jeff import sweep
from jeff.evaluate import Interval, Measure, proportion
from statistics_cases.measures import average, generator, share

__all__ = ["Kinds", "forty_strata", "net", "net_kinds"]

_BITS = 8


def forty_strata(total: int, *, seed: int, campaigns: int) -> list[Measure]:
    """How often intervals hold the rate of 40 strata, most of which rarely fail.

    One stratum in eight has a rate of 0.2, the others of 0.002; injections are
    allocated by these rates.

    Args:
      total: Injections of a campaign.
      seed: Of the record.
      campaigns: Their number.

    Returns:
      Shares of campaigns: of `stratified_estimate`, and of the textbook's interval,
      1.96 standard deviations at the observed rates.
    """
    sizes = generator(seed, "strata").integers(100, 1000, 40)
    rates = np.where(np.arange(40) % 8 == 7, 0.2, 0.002)
    truth = float(sizes @ rates / sizes.sum())
    trials = sweep.allocate(sizes, total, rates=rates)
    held: dict[str, list[bool]] = {"wilson": [], "textbook": []}
    rng = generator(seed, f"strata.{total}")
    for events in rng.binomial(trials, rates, (campaigns, 40)):
        found = sweep.stratified_estimate(sizes, events, trials)
        half = float(special.ndtri(0.975)) * np.sqrt(found.variance)
        held["wilson"].append(found.rate.low <= truth <= found.rate.high)
        held["textbook"].append(abs(found.rate.value - truth) <= half)
    return [
        share(f"strata_held.{name}.{total}", np.array(h)) for name, h in held.items()
    ]


def net_kinds() -> np.ndarray:
    """Faults and events of the net of the page, of every leaf and bit.

    Returns:
      int64 ``[2, leaves, bits]``: all faults, and those that change the top class of
      one of the images.
    """
    rng = np.random.default_rng(0)
    params = {
        "first": rng.integers(-90, 90, (16, 32), np.int8),
        "last": rng.integers(-90, 90, (32, 2), np.int8),
    }
    images = rng.normal(size=(100, 16)).astype(np.float32)

    def top(params):
        first, last = (params[n].astype(jnp.float32) for n in ("first", "last"))
        return jnp.argmax(jax.nn.relu(images @ first) @ last, axis=1)

    golden = top({name: jnp.asarray(leaf) for name, leaf in params.items()})
    space = sweep.enumerate_faults(params)
    event = sweep.exhaustive(
        lambda p: (top(p) != golden).any(), params, space=space, batch_size=64
    )
    located = space.locate(np.arange(len(space)))
    kind = np.asarray(located.leaf) * _BITS + np.asarray(located.bit)
    counts = [np.bincount(kind, w, 2 * _BITS) for w in (None, event)]
    return np.array(counts).astype(np.int64).reshape(2, 2, _BITS)


class Kinds:
    """Campaigns on faults of which sizes and events by kind are known."""

    def __init__(self, counts: np.ndarray, budget: int, pilot: int):
        """Takes what `net_kinds` gives, and injections of main run and pilot.

        Args:
          counts: Faults and events, int64 ``[2, leaves, bits]``.
          budget: Injections of the main run.
          pilot: Injections into every kind before it.
        """
        self.budget, self.pilot = budget, pilot
        self.faults = int(counts[0].sum())
        self.rate = float(counts[1].sum() / self.faults)
        self.sizes = counts[0].ravel()  # of strata: leaf and bit
        self.rates = counts[1].ravel() / self.sizes
        by_bit = counts.sum(1)
        self.target = by_bit[0] / self.faults  # of importance: bit
        self.by_bit = by_bit[1] / by_bit[0]

    def plain(self, rng: np.random.Generator) -> tuple[Interval, int]:
        """A plain sample: the interval, and how many injections it took."""
        total = self.budget + self.pilot * self.sizes.size
        return proportion(int(rng.binomial(total, self.rate)), total), total

    def proportional(self, rng: np.random.Generator) -> tuple[Interval, int]:
        """Strata in proportion to their sizes."""
        total = self.budget + self.pilot * self.sizes.size
        return self._strata(rng, sweep.allocate(self.sizes, total)), total

    def piloted(self, rng: np.random.Generator) -> tuple[Interval, int]:
        """Strata allocated by a pilot, as `stratified_campaign` does it."""
        pilot = np.full(self.sizes.size, self.pilot)
        guessed = sweep.pilot_rates(rng.binomial(pilot, self.rates), pilot)
        trials = sweep.allocate(self.sizes, self.budget, rates=guessed)
        return self._strata(rng, trials), self.budget + int(pilot.sum())

    def importance(self, rng: np.random.Generator) -> tuple[Interval, int]:
        """A proposal over bits from a pilot, as `importance_campaign` does it."""
        pilot = np.full(self.target.size, self.pilot)
        guessed = sweep.pilot_rates(rng.binomial(pilot, self.by_bit), pilot)
        proposal = sweep.best_proposal(self.target, guessed)
        kinds = rng.choice(self.target.size, self.budget, p=proposal)
        events = rng.random(self.budget) < self.by_bit[kinds]
        found = sweep.weighted_estimate(
            events, kinds, target=self.target, proposal=proposal
        )
        return found.mean, self.budget + int(pilot.sum())

    def known(self) -> dict[str, float]:
        """Variance over a plain sample's if the rates were known beforehand."""
        plain = self.rate * (1 - self.rate) / self.budget
        guessed = self.rates.clip(0.02, 0.98)
        trials = sweep.allocate(self.sizes, self.budget, rates=guessed)
        strata = sweep.stratified_variance(self.sizes, self.rates, trials)
        proposal = sweep.best_proposal(self.target, self.by_bit)
        square = float((self.target**2 / proposal) @ self.by_bit)
        importance = (square - self.rate**2) / self.budget
        return {"strata_known": strata / plain, "importance_known": importance / plain}

    def _strata(self, rng: np.random.Generator, trials: np.ndarray) -> Interval:
        events = rng.binomial(trials, self.rates)
        return sweep.stratified_estimate(self.sizes, events, trials).rate


def net(budget: int, pilot: int, *, seed: int, campaigns: int) -> list[Measure]:
    """Campaigns on the page's net: variance over a plain sample's, and coverage.

    Args:
      budget: Injections of the main run.
      pilot: Injections into every kind before it.
      seed: Of the record.
      campaigns: Their number, of each kind.

    Returns:
      Of every kind of campaign the number of injections, pilot included, the variance
      of the estimates over that of a plain sample of as many, and the share of
      campaigns whose interval holds the event rate. The variance that known rates would
      give, without a pilot.
    """
    kinds = Kinds(net_kinds(), budget, pilot)
    ways = {
        "plain": kinds.plain,
        "strata_proportional": kinds.proportional,
        "strata_pilot": kinds.piloted,
        "importance_pilot": kinds.importance,
    }
    found = []
    for name, campaign in ways.items():
        case = f"{name}.{budget}"
        rng = generator(seed, f"net.{case}")
        done = [campaign(rng) for _ in range(campaigns)]
        total = done[0][1]
        held = np.array([i.low <= kinds.rate <= i.high for i, _ in done])
        plain = kinds.rate * (1 - kinds.rate) / total
        # Squared distances from the truth: the estimates are unbiased.
        squares = np.array([(i.value - kinds.rate) ** 2 for i, _ in done]) / plain
        found += [
            Measure(f"net_injections.{case}", total),
            average(f"net_variance.{case}", squares),
            share(f"net_held.{case}", held),
        ]
    found += [
        Measure(f"net_variance.{name}.{budget}", ratio)
        for name, ratio in kinds.known().items()
    ]
    return found
