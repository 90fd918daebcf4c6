"""Injections needed to know how often a weight's bit flip changes an answer, to 1 %.

An injection is one bit flip of an int8 weight, drawn from all of them, seen by one test
picture; the event is a changed answer. Injections are independent, as the exact
intervals ask.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import jeff
from faults_cases import subjects
from jeff import sweep
from jeff.evaluate import Interval, Measure, proportion

__all__ = ["Campaign", "anytime", "campaign", "measures", "stratified"]

MARGIN, LEVEL = 0.01, 0.95
_CHUNK = 512
_LOOK = 128  # injections between two looks
_PILOT = 240  # injections before strata are weighed

Inject = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Campaign(NamedTuple):
    """What can be injected, and how.

    Attributes:
      space: All faults.
      pictures: Number of pictures.
      inject: ``inject(faults, pictures) -> changed``, bool ``[n]``, by their numbers.
    """

    space: sweep.FaultSpace
    pictures: int
    inject: Inject


def campaign(subject: subjects.Subject) -> Campaign:
    """Compiles the injection of single bit flips.

    Args:
      subject: Network and pictures.

    Returns:
      The campaign.
    """
    space = sweep.enumerate_faults(subject.params, where=subjects.KERNELS)
    apply = jeff.rewrite(subject.apply)
    inputs = jnp.asarray(subject.data.inputs)
    golden = jnp.asarray(subject.data.golden)

    @jax.jit
    def chunk(params, faults, pictures):
        def one(numbers):
            fault, picture = numbers
            faulty = sweep.flip_one(params, fault, space)
            logits = apply(faulty, inputs[picture][None])
            label = jnp.zeros(1, jnp.int32)
            return sweep.outcome(logits, golden[picture][None], label).changed > 0

        return lax.map(one, (faults, pictures))

    def inject(faults: np.ndarray, pictures: np.ndarray) -> np.ndarray:
        found = []
        for start in range(0, len(faults), _CHUNK):
            part = slice(start, start + _CHUNK)
            few = [a[part].astype(np.int32) for a in (faults, pictures)]
            filled = [np.pad(a, (0, _CHUNK - len(a)), mode="edge") for a in few]
            done = np.asarray(chunk(subject.params, *filled))
            found.append(done[: len(few[0])])
        return np.concatenate(found)

    return Campaign(space, len(inputs), inject)


def anytime(changed: np.ndarray) -> Iterator[tuple[int, Interval]]:
    """Campaigns that stop as soon as the margin is reached, one after the other.

    Args:
      changed: bool ``[n]``, outcomes of independent injections.

    Yields:
      Injections until a campaign stopped, and the interval it then had; a campaign
      that does not end within the outcomes is left out.
    """
    rule = sweep.Margin(
        margin=MARGIN, count=lambda a: a, method="clopper_pearson", level=LEVEL
    )
    values = rule.statistic(changed.astype(np.float64))
    start, look = 0, 0
    while start + (look + 1) * _LOOK <= len(values):
        look += 1
        seen = values[start : start + look * _LOOK]
        if rule.decide(seen, look):
            yield len(seen), rule.interval(seen, look)
            start, look = start + len(seen), 0


def stratified(
    made: Campaign, rng: np.random.Generator, kind: str
) -> tuple[int, Interval]:
    """A campaign with strata: a pilot, then injections where they tell most.

    Two stages: the number of injections is chosen from the pilot, and raised by a tenth
    as long as the interval is wider than asked for. Unlike `anytime` this looks again
    at a fixed interval, so its level is nominal.

    Args:
      made: The campaign.
      rng: Of all draws.
      kind: ``"bit"``: eight strata; ``"layer_bit"``: the bits of every layer.

    Returns:
      All injections, those of the pilot too, and the interval.
    """
    groups = _groups(made.space, kind)
    sizes = np.array([sum(count for _, count in group) for group in groups])
    trials = np.zeros(len(groups), np.int64)
    events = np.zeros(len(groups), np.int64)

    def inject_to(wanted: np.ndarray) -> None:
        more = np.maximum(wanted - trials, 0)
        which = np.repeat(np.arange(len(groups)), more)
        faults = np.array([_draw(made.space, groups[h], rng) for h in which], np.int64)
        pictures = rng.integers(0, made.pictures, len(faults))
        if len(faults):
            changed = made.inject(faults, pictures)
            events[:] += np.bincount(which, changed, len(groups)).astype(np.int64)
            trials[:] += more

    total = max(_PILOT, 3 * len(groups))
    inject_to(np.full(len(groups), total // len(groups)))
    while True:
        guess = sweep.pilot_rates(events, trials)
        inject_to(sweep.allocate(sizes, total, rates=guess))
        found = sweep.stratified_estimate(sizes, events, trials, level=LEVEL).rate
        if max(found.high - found.value, found.value - found.low) <= MARGIN:
            return int(trials.sum()), found
        total = int(1.1 * max(total, trials.sum())) + 1


def measures(subject: subjects.Subject, seed: int, injected: int) -> list[Measure]:
    """The three rules on a network, as measures.

    Args:
      subject: Network and pictures.
      seed: Of all draws.
      injected: Injections drawn from all faults, at least those of the fixed rule.

    Returns:
      The measures.
    """
    made = campaign(subject)
    rng = np.random.default_rng(seed)
    faults = rng.integers(0, len(made.space), injected)
    changed = made.inject(faults, rng.integers(0, made.pictures, injected))
    fixed = sweep.sample_size(MARGIN, level=LEVEL)
    truth = proportion(int(changed.sum()), injected)
    first = proportion(int(changed[:fixed].sum()), fixed)
    found = [
        _of("changed_share.all_injections", truth),
        _of("changed_share.fixed", first),
        Measure("injections.fixed", fixed, ""),
    ]
    runs = {"anytime": list(anytime(changed))}
    for kind in ("bit", "layer_bit"):
        runs[f"stratified_{kind}"] = [stratified(made, rng, kind) for _ in range(3)]
    for name, campaigns in runs.items():
        counts = [count for count, _ in campaigns]
        middle = float(np.median(counts))
        ends = {"low": min(counts), "high": max(counts), "trials": len(counts)}
        found.append(Measure(f"injections.{name}", middle, "", baseline=fixed, **ends))
        found.append(_of(f"changed_share.{name}", campaigns[0][1]))
        if name == "anytime":  # the only one that is as sure as the fixed rule
            found.append(Measure(f"ratio.fixed_rule.{name}", fixed / middle, ""))
    return found


def _of(name: str, found: Interval) -> Measure:
    value, low, high, trials = found
    return Measure(name, value, "fraction", low=low, high=high, trials=trials)


def _groups(space: sweep.FaultSpace, kind: str) -> list[list[tuple[str, int]]]:
    """Strata as lists of (stratum of the space as ``leaf bit b``, its size)."""
    if kind == "layer_bit":
        return [[stratum] for stratum in space.strata()]
    by_bit: dict[str, list[tuple[str, int]]] = {}
    for name, size in space.strata():
        by_bit.setdefault(name.rpartition(" ")[2], []).append((name, size))
    return list(by_bit.values())


def _draw(space: Any, group: list[tuple[str, int]], rng: np.random.Generator) -> int:
    """The number of a fault, each of the group's equally likely."""
    place = int(rng.integers(0, sum(size for _, size in group)))
    for name, size in group:
        if place < size:
            leaf, _, bit = name.split(" ")
            return space.number(leaf, place, int(bit))
        place -= size
    raise AssertionError("the place lies in one of the strata")
