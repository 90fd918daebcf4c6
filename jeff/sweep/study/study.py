"""A fault study: accuracy by rate, and which layers and bits matter."""

import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from jeff.evaluate import Progress
from jeff.sweep.campaigns.batches import Examples
from jeff.sweep.campaigns.curve import CurvePoint, accuracy_curve
from jeff.sweep.campaigns.golden import examples
from jeff.sweep.campaigns.outcome import Outcome
from jeff.sweep.engine.folder import SweepFolder
from jeff.sweep.engine.processes import together
from jeff.sweep.engine.result import SweepResult
from jeff.sweep.engine.run import finish
from jeff.sweep.single_flips.fault_space import FaultSpace
from jeff.sweep.single_flips.vulnerability import (
    Vulnerability,
    site_table,
    weight_table,
)
from jeff.sweep.study.named_faults import NamedFault
from jeff.sweep.study.parts import Part, Subject, curve_part, map_part
from jeff.sweep.study.settings import StudySettings, begin_parts
from jeff.sweep.study.targets import (
    Target,
    feature_targets,
    how_to_draw,
    weight_targets,
)

__all__ = ["FaultStudy", "Found", "prepare_study", "run_study"]


class FaultStudy(NamedTuple):
    """A study that was checked and planned, and has not been run.

    Attributes:
      settings: What was asked for.
      fault: The fault model.
      targets: What it hits.
      data: The images, with golden outputs.
      key: The key.
      parts: The curve, and the map if one was asked for.
      directory: Where finished units are kept, or ``None``.
      left_out: Names of sites that a map cannot hit, since they lie in loops.
    """

    settings: StudySettings
    fault: NamedFault
    targets: tuple[Target, ...]
    data: Examples
    key: jax.Array
    parts: tuple[Part, ...]
    directory: pathlib.Path | None
    left_out: tuple[str, ...]

    @property
    def golden_accuracy(self) -> float:
        """Accuracy without faults."""
        return float(np.mean(self.data.golden.argmax(-1) == self.data.labels))


class Found(NamedTuple):
    """What a study found.

    Attributes:
      curve: A point per rate.
      maps: Rows of the vulnerability map by what they are about: ``"layer_bit"``,
        ``"layer"`` and ``"bit"``; empty without a map.
      results: The statistics of every trial, by part.
    """

    curve: tuple[CurvePoint, ...]
    maps: Mapping[str, Sequence[Vulnerability]]
    results: Mapping[str, SweepResult]


def prepare_study(
    apply: Callable[..., Any],
    params: Any,
    data: Examples,
    settings: StudySettings,
    key: jax.Array,
    *,
    golden_batch: int | None = None,
    directory: str | os.PathLike[str] | None = None,
    about: Mapping[str, Any] | None = None,
    map_images: int | None = None,
    devices: int | Sequence[Any] | Mesh | None = None,
    byte_budget: int | None = None,
) -> FaultStudy:
    """Checks a study and plans it; runs no trial.

    Golden outputs are those of the batches that the plan chooses: with other batches
    the same arithmetic may round otherwise, and where two answers nearly tie a fault
    would be seen that is none. In several processes all call it; if one fails, all
    raise.

    Args:
      apply: ``apply(params, *inputs)`` with logits ``[batch, classes]``.
      params: Params without faults, dense or stored.
      data: Images with labels and golden outputs, from `examples`; labels ``None``:
        what the network answers without faults is right.
      settings: What to do.
      key: A typed key.
      golden_batch: The `batch` that golden outputs were made with; where the plan's is
        another, or if ``None``, they are made again.
      directory: A folder for finished units; the same study goes on where it was
        stopped, another one is refused by the name of what differs.
      about: More about the study to compare when it goes on: JSON values by name.
      map_images: Images of the map, the first ones; ``None``: all.
      devices: Devices of this process, or how many, or a mesh, as for
        `jeff.sweep.run`; all if ``None``.
      byte_budget: What the intermediate results of a unit may take.

    Returns:
      The study.

    Raises:
      TypeError: If the fault model cannot act on what is chosen.
      ValueError: If nothing is chosen (with near names), a rate cannot be drawn, a size
        cannot be had, or the directory is of another study.
      OSError: If the directory cannot be written, or another study is beginning there.
      RuntimeError: If another process failed; it is named.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jeff.sweep import examples
      >>> apply, params = lambda p, x: x @ p["w"], {"w": jnp.eye(4)}
      >>> data = examples(apply, params, np.eye(4, dtype=np.float32))
      >>> settings = StudySettings(rates=(0.0, 0.1), trials=4)
      >>> study = prepare_study(apply, params, data, settings, jax.random.key(0))
      >>> found = run_study(study)
      >>> [point.accuracy.value for point in found.curve]
      [1.0, 0.5]
    """
    folder = None if directory is None else pathlib.Path(directory)
    subject = Subject(
        apply, params, key, folder, {"devices": devices, "budget_bytes": byte_budget}
    )
    study = _planned(subject, data, settings, golden_batch, map_images)

    def begin() -> None:
        if folder is not None and jax.process_index() == 0:
            begin_parts(folder, _begun(settings, about or {}, map_images))

    together(begin)
    return study


def _planned(
    subject: Subject,
    data: Examples,
    settings: StudySettings,
    golden_batch: int | None,
    map_images: int | None,
) -> FaultStudy:
    """Plans the parts; what may fail in one process alone is done `together`."""
    fault, (apply, params) = settings.model, subject[:2]

    def check() -> tuple[Target, ...]:
        if subject.directory is not None:
            SweepFolder(subject.directory)  # refuses a file in its place
        found: tuple[Target, ...] = ()
        if settings.target != "features":
            found += weight_targets(params, settings.where)
        if settings.target != "weights":
            found += feature_targets(
                apply, params, data.inputs, settings.where, count=fault.count
            )
        return found

    def answered(some: Examples, part: Part) -> Examples:
        batch = part.plan.batch
        return together(
            lambda: examples(apply, params, some.inputs, some.labels, batch=batch)
        )

    targets = together(check)
    draw = how_to_draw(fault, settings.values, targets)
    answers = data.golden.argmax(-1).astype(np.int32)
    labelled = data if data.labels is not None else data._replace(labels=answers)
    curve = curve_part(subject, labelled, settings, targets, draw)
    if curve.plan.batch != golden_batch:
        labelled = answered(data, curve)
    parts, left_out = [curve.with_answers(labelled)], ()
    if settings.map_trials:
        some = jax.tree.map(lambda a: a[:map_images], labelled)
        mapped, left_out = map_part(subject, some, settings, targets)
        if mapped.plan.batch != curve.plan.batch:
            mapped = mapped.with_answers(answered(some, mapped))
        parts.append(mapped)
    return FaultStudy(
        settings, fault, targets, labelled, subject.key, tuple(parts),
        subject.directory, left_out,
    )  # fmt: skip


def run_study(
    study: FaultStudy,
    progress: Progress | None = None,
    *,
    begin: Callable[[Part], Any] | None = None,
) -> Found:
    """Runs what is not finished yet.

    Args:
      study: From `prepare_study`.
      progress: Told about every unit.
      begin: Called with every part before it runs.

    Returns:
      What was found.

    Raises:
      ValueError: If trials lack faults, or a stored unit is damaged.
      OSError: If a unit cannot be kept, or another sweep writes there.

    Examples:
      See `prepare_study`.
    """
    results = {}
    for part in study.parts:
        if begin is not None:
            begin(part)
        results[part.name] = finish(
            part.ready,
            stop=study.settings.stop if part.name == "curve" else None,
            progress=progress,
        )
    settings = study.settings
    curve = accuracy_curve(
        results["curve"],
        independent=settings.target == "features" and not settings.permanent,
        level=settings.level,
        stop=settings.stop,
    )
    maps = {}
    for part in study.parts:
        if part.space is not None:
            stats = results[part.name].stats
            maps = {
                by: _rows(part.space, stats, by, settings.level)
                for by in ("layer_bit", "layer", "bit")
            }
    return Found(curve, maps, results)


def _rows(space, stats: Outcome, by: str, level: float) -> list[Vulnerability]:
    if isinstance(space, FaultSpace):
        return weight_table(space, stats, by=by, level=level)
    return site_table(space, stats, by=by, level=level)


def _begun(settings: StudySettings, about, map_images) -> dict[str, dict[str, Any]]:
    """What the study must have in common with the one that it goes on with."""
    stop = settings.stop
    common = {
        **about, "fault": settings.fault, "set": settings.fault_settings,
        "on": settings.target,
        "where": settings.where, "plan": settings.over, "unit": settings.unit,
        "batch": settings.batch,
    }  # fmt: skip
    parts = {
        "curve": common | {
            "rates": list(settings.values), "trials": settings.trials,
            "permanent": settings.permanent, "margin": settings.margin,
            "margin_method": None if stop is None else stop.method,
            "level": None if stop is None else stop.level,
        },
    }  # fmt: skip
    if settings.map_trials:
        mapped = {
            "map_trials": settings.map_trials, "map_images": map_images,
            "feature_bits": settings.feature_bits,
        }  # fmt: skip
        parts["map"] = common | mapped
    return parts
