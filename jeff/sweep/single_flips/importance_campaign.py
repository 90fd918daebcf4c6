"""A campaign by importance: kinds of single bit flips drawn from a proposal."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jeff.prng import named_key
from jeff.sweep import checks
from jeff.sweep.campaigns.outcome import outcome
from jeff.sweep.engine.result import SweepResult
from jeff.sweep.engine.run import run
from jeff.sweep.single_flips.each_kind import part_of, run_each_kind
from jeff.sweep.single_flips.fault_space import FaultSpace
from jeff.sweep.single_flips.injected import (
    check_value,
    drawn_kind_trial,
    given_kind_trial,
    values_of,
)
from jeff.sweep.single_flips.kinds import fault_kinds
from jeff.sweep.statistics.importance import (
    Weighted,
    best_proposal,
    weighted_estimate,
)

__all__ = ["ImportanceCampaign", "importance_campaign"]


class ImportanceCampaign(NamedTuple):
    """What a campaign by importance found.

    Attributes:
      estimate: Mean over all faults with its interval, and the effective number of
        trials.
      kinds: Names of the kinds.
      target: float64 ``[kinds]``, their shares `p` in all faults.
      proposal: float64 ``[kinds]``, the probabilities `q` that they were injected with.
        A trial of kind `b` weighs ``p_b / q_b``.
      pilot: The pilot's statistics (`Injected`, a design per kind), or ``None``.
      main: Those of the main run (`Injected`, one design).
    """

    estimate: Weighted
    kinds: tuple[str, ...]
    target: np.ndarray
    proposal: np.ndarray
    pilot: SweepResult | None
    main: SweepResult


def importance_campaign(
    space: FaultSpace,
    apply: Callable[..., Any],
    params: Any,
    data: Any,
    key: jax.Array,
    *,
    budget: int,
    pilot: int = 0,
    proposal: Any = None,
    by: str = "bit",
    value: str | Callable[[Any], Any] = "changed",
    defensive: float = 0.1,
    level: float = 0.95,
    measure: Callable[..., Any] = outcome,
    directory: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> ImportanceCampaign:
    """Injects single bit flips of the kinds that matter, and weighs what they do.

    1. *Pilot*: `pilot` flips of every kind, from ``named_key(key, "pilot")``.
    2. *Proposal*: `best_proposal` for the mean squares that it guesses, ``(sum f^2 + 1)
       / (n + 2)``, mixed with the target.
    3. *Main run*: `budget` flips from ``named_key(key, "main")``. Each draws its kind
       from the proposal by its own key, then one of the faults of this kind.
    4. *Estimate* of the main run alone (`weighted_estimate`), unbiased for the mean
       over all faults whatever the proposal.

    Args:
      space: As for `stratified_campaign`, and so are the others unless said otherwise.
      apply: The program.
      params: Params without faults.
      data: `Examples`; each flip is evaluated on all of them.
      key: A typed key.
      budget: Injections of the main run, at least 2.
      pilot: Injections of the pilot for every kind; 0: none, `proposal` is used.
      proposal: Probabilities to inject the kinds with, ``[kinds]``, of sum 1 and above
        0, in place of a pilot.
      by: What kinds are: ``"bit"``, ``"layer"`` or ``"layer_bit"``.
      value: What is averaged: a count of this name above 0 is 1 (``"changed"``: some
        image's answer changed), else 0; or a function from outcomes ``[n]`` to numbers
        in [0, 1], such as ``lambda o: o.changed / o.images``.
      defensive: Share of the target in the proposal, as for `best_proposal`; bounds
        the weights.
      level: Confidence level in (0, 1).
      measure: As in `weight_faults`.
      directory: A folder for both runs.
      **settings: Of `run`.

    Returns:
      The estimate, the proposal and all statistics.

    Raises:
      KeyError: If there is no count of the name given.
      TypeError: As `run`.
      ValueError: If the space is of other params, not one of `pilot` and `proposal` is
        given, or a number is out of range; else as `run`.
      OSError: As `run`.

    Examples:
      The upper half of a word, three times as often as the lower half:

      >>> from jeff.sweep import enumerate_faults, examples
      >>> def linear(p, x):
      ...     return x @ p["w"]
      >>> params, x = {"w": np.eye(3, dtype=np.float32)}, np.eye(3, dtype=np.float32)
      >>> found = importance_campaign(
      ...     enumerate_faults(params), linear, params, examples(linear, params, x),
      ...     jax.random.key(0), budget=400, proposal=np.repeat([1 / 64, 3 / 64], 16),
      ... )
      >>> mean, _, effective = found.estimate
      >>> print("{:.3f} [{:.3f}, {:.3f}] of {}".format(*mean), round(effective))
      0.048 [0.031, 0.065] of 400 300

    References:
      `best_proposal`, `weighted_estimate`.
    """
    kinds = fault_kinds(space, params, by)
    if bool(pilot) == (proposal is not None):
        raise ValueError(
            f"give one of pilot and proposal, got {pilot=} and proposal={proposal}"
        )
    level, target = checks.level(level), kinds.target
    budget = checks.positive("budget", budget)
    if budget < 2:
        raise ValueError(f"budget must be at least 2 for a variance: {budget=}")
    check_value(value, measure, data)
    first = None
    if pilot:
        best_proposal(target, np.ones(len(kinds)), defensive=defensive)  # checks it
        each = np.full(len(kinds), checks.positive("pilot", pilot))
        first, values = run_each_kind(
            given_kind_trial(apply, params, kinds, measure),
            data, key, "pilot", each, value, directory, settings,
        )  # fmt: skip
        moments = [(float((v**2).sum()) + 1) / (len(v) + 2) for v in values]
        proposal = best_proposal(target, moments, defensive=defensive)
    proposal = checks.probabilities("proposal", proposal, len(kinds))
    if not proposal.all():
        kind = kinds.names[int(np.argmin(proposal))]
        raise ValueError(f"proposal is 0 for {kind!r}, which occurs: biased")
    main = run(
        drawn_kind_trial(apply, params, kinds, proposal, measure),
        named_key(key, "main"), rates=[1.0], trials=budget, data=data,
        directory=part_of(directory, "main"), **settings,
    )  # fmt: skip
    stats = main.rate_point(0, 0)
    estimate = weighted_estimate(
        values_of(stats.outcome, value), stats.kind, target=target, proposal=proposal,
        level=level,
    )  # fmt: skip
    return ImportanceCampaign(estimate, kinds.names, target, proposal, first, main)
