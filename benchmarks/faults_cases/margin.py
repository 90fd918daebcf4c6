"""Seconds until a share is known to 1 %: jeff's campaigns, and the peers' fixed rule.

PyTorchFI and MRFI have no rule that stops. Who uses them injects as often as the fixed
rule says, whatever is found: 9,604 times for one percent at 95 %. jeff's campaigns run
from the first draw to the decision to stop, one look at every unit.

A rule that looks often pays for it where the share is far from 0 and 1. So a campaign
ends at the latest where the fixed rule of a level of 96 % does, after 10,548
injections; until then it may stop at any look at a level of 99 %. Together they miss in
5 % of campaigns at most.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jeff
from faults_cases import injections, subjects, units
from faults_cases.peers import Peers
from jeff import base, faults, sweep
from jeff.evaluate import Measure
from pallas_kernels import timing

__all__ = ["Settings", "campaigns", "measures", "to_margin"]

_UNIT = 128  # injections between two looks
_UNITS = 256  # of a campaign at most
_EARLY = 0.01  # of the 5 % that may be missed, what stopping early takes
_BATCH = 64  # pictures at a time, of the peers' cases with features
_RATE = 1e-3
_GROUP = 16  # trials at a time of campaigns on features: they stay in the caches
_PEERS = {"weights": "pytorchfi", "features": "mrfi"}
_CASES = {"weights": "pytorchfi.weight.b1", "features": f"mrfi.flips.b{_BATCH}"}


class Settings(NamedTuple):
    """How it is measured.

    Attributes:
      peers: The interpreter that has torch, PyTorchFI and MRFI.
      cores: How many cores and threads.
      repeats: Campaigns of each kind.
      seconds: About how long a run of a peer takes.
      seed: Of all draws.
    """

    peers: str
    cores: int
    repeats: int
    seconds: float
    seed: int


def campaigns(subject: subjects.Subject) -> dict[str, sweep.Trial]:
    """An injection is a trial: faults of its own, and a random picture.

    Args:
      subject: Network and pictures.

    Returns:
      ``"weights"``: one bit flip of an int8 weight; ``"features"``: all features in 8
      bits, and a bit flipped in a share of 1e-3 of them. Their statistics are
      `jeff.sweep.Outcome`.
    """
    data = jax.tree.map(jnp.asarray, subject.data)
    count = len(subject.data.inputs)
    space = sweep.enumerate_faults(subject.params, where=subjects.KERNELS)
    stored, dense = jeff.rewrite(subject.apply), base.decoded(subject.params)

    def flipped(key, rate, design):
        del rate, design
        key_fault, key_picture = jax.random.split(key)
        number = jax.random.randint(key_fault, (), 0, len(space))
        picture = jax.random.randint(key_picture, (), 0, count)
        return sweep.flip_one(subject.params, number, space), picture

    def of_flipped(drawn, batch):
        faulty, picture = drawn
        one = jax.tree.map(lambda a: a[picture][None], data)
        logits = stored(faulty, one.inputs)
        return sweep.outcome(logits, one.golden, one.labels, batch.valid)

    def picked(key, rate, design):
        del design
        key_fault, key_picture = jax.random.split(key)
        return key_fault, rate, jax.random.randint(key_picture, (), 0, count)

    def of_picked(drawn, batch):
        key, rate, picture = drawn
        one = jax.tree.map(lambda a: a[picture][None], data)
        model = faults.fixed_point_flip(rate, bits=8, max_rate=_RATE)
        noisy = jeff.rewrite(subject.apply, faults.on_features(model, key))
        logits = noisy(dense, one.inputs)
        return sweep.outcome(logits, one.golden, one.labels, batch.valid)

    return {
        "weights": sweep.Trial(flipped, of_flipped),
        "features": sweep.Trial(picked, of_picked),
    }


def to_margin(devices: Any, rule: sweep.Margin, first: int) -> tuple[int, float]:
    """One campaign: units until the rule stops it.

    Args:
      devices: What computes units.
      rule: When to stop.
      first: Number of its first unit.

    Returns:
      Injections, and the share of changed answers.
    """
    seen: list[np.ndarray] = []
    numbers = range(first, first + _UNITS)
    for _, stats in devices.compute(numbers, len(jax.local_devices())):
        seen.append(rule.statistic({"changed": stats["changed"]}))
        values = np.concatenate(seen)
        if rule.decide(values, len(seen)):
            return len(values), float(values[:, 0].mean())
    raise SystemExit("a campaign did not end")


def measures(
    subject: subjects.Subject, settings: Settings
) -> tuple[list[Measure], list[str]]:
    """Times campaigns and the peers' injections, in turns.

    Args:
      subject: A trained network and pictures.
      settings: How.

    Returns:
      ``ratio.PEER.to_margin``: seconds of the peer's fixed rule over those of a
      campaign of jeff in the same round; both; injections, and what they found; and
      notes.
    """
    fixed = sweep.sample_size(injections.MARGIN, level=injections.LEVEL)
    ran: dict[str, list[tuple[int, float]]] = {}
    programs, costs, notes = {}, [], []
    for name, trial in campaigns(subject).items():
        one = jax.tree.map(lambda a: a[:1], subject.data)
        group = "map" if name == "weights" else _GROUP
        case = units.Case(trial, one, _RATE, _UNIT, 1, group, 1)
        built = units.build(case, jax.random.key(settings.seed))
        programs[f"jeff_{name}"] = _campaign(built.devices, ran.setdefault(name, []))
        costs.append(Measure(
            f"compile_seconds.to_margin.jeff_{name}", built.compile_seconds, "s"
        ))  # fmt: skip
        notes.append(f"to_margin.jeff_{name}: {built.plan}.")
    with Peers(
        settings.peers, subjects.arrays(subject.params),
        np.asarray(subject.data.inputs[:_BATCH]), rate=_RATE,
        threads=sorted({1, settings.cores}), seed=settings.seed, padding="end",
    ) as peers:  # fmt: skip
        _check(subject, peers)
        for name, case in _CASES.items():
            if case in peers.cases:
                images = 1 if name == "weights" else _BATCH
                programs[_PEERS[name]] = peers.program(case, images, settings.seconds)
        seconds = timing.times(programs, settings.repeats)
        notes += [
            f"to_margin.{_PEERS[name]}: {peers.forms[case]}."
            for name, case in _CASES.items()
            if case in peers.forms
        ]
    return [*_measures(seconds, ran, fixed), *costs], notes


def _measures(seconds, ran, fixed):
    found = []
    for name, peer in _PEERS.items():
        ours, theirs = seconds[f"jeff_{name}"], seconds.get(peer)
        counts, shares = zip(*ran[name][-len(ours) :], strict=True)
        if theirs is not None:
            ratio = fixed * theirs / ours
            found.append(_middle(f"ratio.{peer}.to_margin", ratio, ""))
            found.append(_middle(f"seconds_to_margin.{peer}", fixed * theirs, "s"))
        found.append(_middle(f"seconds_to_margin.jeff_{name}", ours, "s"))
        found.append(_middle(f"injections_to_margin.jeff_{name}", counts, ""))
        found.append(_middle(f"share_at_margin.jeff_{name}", shares, "fraction"))
    return found


def _campaign(devices, ran) -> timing.Program:
    """Campaigns one after another, each of units of its own."""

    def run():
        ran.append(to_margin(devices, _rule(), len(ran) * _UNITS % units.MOST))

    return timing.Program(first=lambda: None, run=run, products=1, sets=1, nbytes=0)


def _rule() -> sweep.Margin:
    return sweep.Margin(
        margin=injections.MARGIN,
        count="changed",
        method="clopper_pearson",
        level=1 - _EARLY,
        max_trials=sweep.sample_size(
            injections.MARGIN, level=injections.LEVEL + _EARLY
        ),
    )


def _check(subject: subjects.Subject, peers: Peers) -> None:
    """Refuses to time another network than the trained one."""
    golden = np.asarray(subject.data.golden[:_BATCH])
    for logits in peers.logits:
        error = float(np.abs(logits - golden).max() / np.abs(golden).max())
        if not error < 1e-4:
            raise SystemExit(f"torch runs another network: {error:.1e} of the largest")


def _middle(name: str, samples: Any, unit: str) -> Measure:
    s = timing.spread(np.asarray(samples, np.float64))
    return Measure(name, s.median, unit, low=s.low, high=s.high, trials=s.trials)
