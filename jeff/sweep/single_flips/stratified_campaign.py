"""A stratified campaign of single bit flips: pilot, allocation, main run, estimate."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jeff.sweep import checks
from jeff.sweep.campaigns.outcome import outcome
from jeff.sweep.engine.result import SweepResult
from jeff.sweep.single_flips.each_kind import run_each_kind
from jeff.sweep.single_flips.fault_space import FaultSpace
from jeff.sweep.single_flips.injected import check_value, given_kind_trial
from jeff.sweep.single_flips.kinds import fault_kinds
from jeff.sweep.statistics.allocation import allocate, pilot_rates
from jeff.sweep.statistics.strata import Stratified, stratified_estimate

__all__ = ["StratifiedCampaign", "stratified_campaign"]


class StratifiedCampaign(NamedTuple):
    """What a stratified campaign found.

    Attributes:
      estimate: Event rate over all faults with its interval, and a row per stratum.
      trials: int64 ``[strata]``, injections of the main run that the estimate is of.
      rates: float64 ``[strata]``, the rates that they were allocated by; ``None``: in
        proportion to the strata's sizes.
      pilot: The pilot's statistics (`Injected`, a design per stratum), or ``None``.
      main: Those of the main run. Units are whole: a stratum may have a few trials
        more than `trials` says, which the estimate leaves out.
    """

    estimate: Stratified
    trials: np.ndarray
    rates: np.ndarray | None
    pilot: SweepResult | None
    main: SweepResult


def stratified_campaign(
    space: FaultSpace,
    apply: Callable[..., Any],
    params: Any,
    data: Any,
    key: jax.Array,
    *,
    budget: int,
    pilot: int = 0,
    rates: Any = None,
    by: str = "layer_bit",
    event: str | Callable[[Any], Any] = "changed",
    floor: int = 2,
    level: float = 0.95,
    measure: Callable[..., Any] = outcome,
    directory: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> StratifiedCampaign:
    """Injects single bit flips, most where they tell most, and estimates their rate.

    1. *Pilot*: `pilot` flips in every stratum, from ``named_key(key, "pilot")``.
    2. *Allocation*: `budget` flips over the strata, in proportion to size times
       standard deviation at the pilot's rates (`allocate`, `pilot_rates`).
    3. *Main run*: these flips, from ``named_key(key, "main")``; strata are designs of
       one sweep, which compiles once.
    4. *Estimate* of the main run alone (`stratified_estimate`): the pilot decided on
       numbers of injections only, so it is unbiased.

    A flip depends on the key, its stratum and its number in the stratum alone; flips
    may repeat.

    Args:
      space: The faults, from `enumerate_faults` of `params`.
      apply: ``apply(params, *inputs)`` with logits ``[batch, classes]``, or the `apply`
        of a `Prefix`.
      params: Params without faults, or those of a `Prefix`; of a stored leaf the codes
        are hit.
      data: `Examples`; each flip is evaluated on all of them.
      key: A typed key.
      budget: Injections of the main run, at least `floor` for every stratum.
      pilot: Injections of the pilot in every stratum; 0: none.
      rates: Guessed event rate of every stratum in place of a pilot. Without either,
        `budget` is allocated in proportion to the strata's sizes.
      by: What strata are: ``"layer_bit"``, ``"layer"`` or ``"bit"``.
      event: Which injections count: those whose count of this name is above 0
        (``"changed"``: some image's answer changed), or a function from outcomes
        ``[n]`` to 0 or 1 for each.
      floor: Least injections of a stratum, at least 2.
      level: Confidence level in (0, 1).
      measure: As in `weight_faults`.
      directory: A folder for both runs, ``pilot`` and ``main`` in it, so that the same
        call goes on where it was stopped.
      **settings: Of `run`: `unit`, `batch`, `plan`, `budget_bytes`, `chunk`, `devices`
        and `progress`. A unit that is not given is a power of two, small enough that
        at most a tenth of the injections are past the strata's numbers.

    Returns:
      The estimate, the allocation and all statistics.

    Raises:
      KeyError: If there is no count of the name given.
      TypeError: As `run`.
      ValueError: If the space is of other params, the budget does not fit the strata,
        or `event` gives another number than 0 and 1; else as `run`.
      OSError: As `run`.

    Examples:
      >>> from jeff.sweep import enumerate_faults, examples
      >>> def linear(p, x):
      ...     return x @ p["w"]
      >>> params, x = {"w": np.eye(3, dtype=np.float32)}, np.eye(3, dtype=np.float32)
      >>> found = stratified_campaign(
      ...     enumerate_faults(params), linear, params, examples(linear, params, x),
      ...     jax.random.key(0), budget=400, pilot=4,
      ... )
      >>> print("{:.3f} [{:.3f}, {:.3f}] of {}".format(*found.estimate.rate))
      0.042 [0.033, 0.053] of 400
      >>> worst = max(found.estimate.strata, key=lambda row: row.share)
      >>> print(worst.name, worst.events, "of", worst.rate.trials)
      w bit 30 12 of 12

    References:
      Neyman's allocation: `allocate`. Interval: `stratified_estimate`.
    """
    kinds = fault_kinds(space, params, by)
    if pilot and rates is not None:
        raise ValueError("give pilot or rates, not both: a pilot guesses the rates")
    if floor < 2:
        raise ValueError(f"floor must be at least 2 for a variance: {floor=}")
    budget, level = checks.positive("budget", budget), checks.level(level)
    allocate(kinds.sizes, budget, rates=rates, floor=floor)  # refuses what cannot be
    check_value(event, measure, data)
    trial = given_kind_trial(apply, params, kinds, measure)
    first = None
    if pilot:
        each = np.full(len(kinds), checks.positive("pilot", pilot))
        first, values = run_each_kind(
            trial, data, key, "pilot", each, event, directory, settings
        )
        rates = pilot_rates(_events(event, values), each)
    trials = allocate(kinds.sizes, budget, rates=rates, floor=floor)
    main, values = run_each_kind(
        trial, data, key, "main", trials, event, directory, settings
    )
    events = _events(event, values)
    estimate = stratified_estimate(
        kinds.sizes, events, trials, names=kinds.names, level=level
    )
    rates = None if rates is None else np.asarray(rates, np.float64)
    return StratifiedCampaign(estimate, trials, rates, first, main)


def _events(event: Any, values: list[np.ndarray]) -> list[float]:
    """Events in every stratum."""
    for some in values:
        for value in some[(some != 0) & (some != 1)]:
            raise ValueError(f"event must give 0 or 1, {event!r} gave {value:g}")
    return [float(some.sum()) for some in values]
