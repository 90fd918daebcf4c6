"""The sweeps a fault study is made of, each planned: the curve and the map."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jeff.prng import named_key
from jeff.program import sites
from jeff.sweep.campaigns.batches import Examples, one_example
from jeff.sweep.campaigns.campaign import (
    feature_faults,
    weight_and_feature_faults,
    weight_faults,
)
from jeff.sweep.engine.run import Ready, start
from jeff.sweep.planning.choose import EVALUATIONS
from jeff.sweep.planning.plan import Plan, counted
from jeff.sweep.single_flips.fault_space import FaultSpace
from jeff.sweep.single_flips.site_plan import SitePlan, plan_sites
from jeff.sweep.single_flips.site_wise import site_wise
from jeff.sweep.single_flips.weight_map import weight_map
from jeff.sweep.study.named_faults import Draw
from jeff.sweep.study.settings import StudySettings
from jeff.sweep.study.stacks import stacks
from jeff.sweep.study.targets import Target, expected_faults, model_of_rate
from jeff.sweep.trial import Trial

__all__ = ["Part", "Subject", "curve_part", "map_part"]

_PERIOD = 64  # images after which the pattern of a map of features repeats, at most
_LOOKS = 10  # of a rule that stops, at least, if no unit is given
_COPIES = 8  # of an image there, each with a fault of its own


class Subject(NamedTuple):
    """What a study is about, and where it keeps what it has done.

    Attributes:
      apply: ``apply(params, *inputs)`` with logits ``[batch, classes]``.
      params: Params without faults, dense or stored.
      key: A typed key.
      directory: A folder, or ``None``.
      sizes: `devices` and `budget_bytes` of the sweeps.
    """

    apply: Callable[..., Any]
    params: Any
    key: jax.Array
    directory: pathlib.Path | None
    sizes: dict[str, Any]


class Part(NamedTuple):
    """One sweep of a study.

    Attributes:
      name: ``"curve"`` or ``"map"``.
      ready: The sweep, planned and compiled.
      faults: Faults that a unit injects, on average.
      space: Of a map: its leaves and bits, or its sites.
    """

    name: str
    ready: Ready
    faults: float
    space: FaultSpace | SitePlan | None

    @property
    def plan(self) -> Plan:
        """How it is computed."""
        return self.ready.plan

    def with_answers(self, data: Examples) -> "Part":
        """The part with other labels and golden outputs."""
        sweep = self.ready.sweep
        new = sweep.data._replace(labels=data.labels, golden=data.golden)
        ready = self.ready._replace(sweep=sweep._replace(data=new))
        return self._replace(ready=ready)


def curve_part(
    subject: Subject,
    data: Examples,
    settings: StudySettings,
    targets: tuple[Target, ...],
    draw: Draw,
) -> Part:
    """The sweep over rates.

    Args:
      subject: What is swept.
      data: The images.
      settings: What to do.
      targets: What the faults hit.
      draw: How they are drawn.

    Returns:
      The part, planned.

    Raises:
      TypeError: As `jeff.sweep.run`.
      ValueError: As `jeff.sweep.run`.
    """
    fault, rates = settings.model, settings.values
    unit, why = settings.unit, None
    if unit is None and settings.stop is not None:
        each = EVALUATIONS // len(data.golden)
        unit = max(1, min(settings.trials // _LOOKS, each))
        why = (
            f"A unit has {counted(unit, 'trial')}: the margin is asked for after each, "
            f"{_LOOKS} times or more."
        )
    trial = _trial(subject, data, settings, draw)
    ready = _start(
        subject, "curve", settings, trial=trial, rates=rates, trials=settings.trials,
        data=data, unit=unit,
    )  # fmt: skip
    if why is not None:
        ready = _because(ready, why)
    mean = np.mean([expected_faults(fault, rate, targets) for rate in rates])
    return Part("curve", ready, float(mean) * ready.plan.unit, None)


def map_part(
    subject: Subject,
    data: Examples,
    settings: StudySettings,
    targets: tuple[Target, ...],
) -> tuple[Part, tuple[str, ...]]:
    """The sweep over layers and bits, with one flipped bit at a time.

    Args:
      subject: What is swept.
      data: The images.
      settings: What to do.
      targets: What the faults hit.

    Returns:
      The part, planned, and names of sites that it leaves out since they lie in loops.

    Raises:
      TypeError: As `jeff.sweep.run`.
      ValueError: As `jeff.sweep.run`; also if all sites lie in loops.
    """
    designs, left_out = None, ()
    if settings.target == "weights":
        names = [t.name for t in targets]
        apply, params = subject.apply, subject.params
        trial, designs, space = weight_map(
            apply, params, where=names, stacked=stacks(apply, params, data.inputs)
        )
    else:
        loops, bits = _in_loops(subject, data), settings.feature_bits
        left_out = tuple(t.name for t in targets if t.name in loops)
        space = _site_plan(subject, data, [t.name for t in targets], loops, bits)
        trial = site_wise(
            subject.apply, subject.params, space, faults_per_image=_COPIES
        )
    ready = _start(
        subject, "map", settings, trial=trial, rates=(1.0,),
        trials=settings.map_trials, data=data, designs=designs, unit=settings.unit,
    )  # fmt: skip
    each = 1 if settings.target == "weights" else _COPIES * len(data.labels)
    return Part("map", ready, float(ready.plan.unit * each), space), left_out


def _trial(
    subject: Subject, data: Examples, settings: StudySettings, draw: Draw
) -> Trial:
    """A device of the curve."""
    apply, params, fault = subject.apply, subject.params, settings.model
    axes = stacks(apply, params, data.inputs) if fault.by_range else {}
    weights, features = (
        model_of_rate(fault, draw, on, settings.where, axes)
        for on in ("weights", "features")
    )
    each: dict[str, Any] = {"per_image": len(data.golden)}
    if settings.target == "weights":
        return weight_faults(apply, params, weights, **each)
    each |= {"where": settings.where, "permanent": settings.permanent}
    if settings.target == "features":
        return feature_faults(apply, params, features, **each)
    return weight_and_feature_faults(apply, params, weights, features, **each)


def _site_plan(subject, data, names, loops, fixed_point) -> SitePlan:
    names = [name for name in names if name not in loops]
    if not names:
        raise ValueError(
            "a map of features needs a site outside of loops, and all chosen ones lie "
            "in loops: write the loop out, or map the weights"
        )
    period = max(len(names), min(_PERIOD, len(jax.tree.leaves(data.inputs)[0])))
    return plan_sites(
        subject.apply, subject.params, data.inputs, sites=names, period=period,
        fixed_point=fixed_point,
    )  # fmt: skip


def _in_loops(subject, data) -> set[str]:
    one = one_example(data.inputs)
    return {s.name for s in sites(subject.apply, subject.params, *one) if s.trips}


def _start(
    subject: Subject, name: str, settings: StudySettings, *, trial: Trial, unit: Any,
    **what: Any,
) -> Ready:  # fmt: skip
    """A part's sweep, planned as it was begun, if it was."""
    folder = subject.directory
    return start(
        trial,
        named_key(subject.key, name),
        **what,
        plan=settings.over,
        unit=None if unit is None else min(unit, what["trials"]),
        batch=settings.batch,
        directory=None if folder is None else folder / name,
        **subject.sizes,
    )


def _because(ready: Ready, why: str) -> Ready:
    """With another reason for the plan's unit, which was none of the user's."""
    plan, told = ready.plan, "as was asked for."
    reasons = tuple(
        why if r.startswith("A unit has") and r.endswith(told) else r
        for r in plan.reasons
    )
    plan = dataclasses.replace(plan, reasons=reasons)
    return ready._replace(prepared=ready.prepared._replace(plan=plan))
