"""What a fault study is asked to do, as one frozen value."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from jeff.faults.fixed_point import check_bits
from jeff.io import write_atomically
from jeff.io.folder_lock import folder_lock
from jeff.sweep import checks
from jeff.sweep.planning.arguments import check_over
from jeff.sweep.statistics.stopping import Margin, look_level
from jeff.sweep.study.named_faults import NamedFault, named_fault

__all__ = ["StudySettings", "begin_parts"]

_KEY = "study_format"
_FORMAT = 2  # of what is written down; 1 knew no settings of fault models
_TARGETS = ("weights", "features", "both")
_MARGIN_METHODS = ("empirical_bernstein", "student_t")


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudySettings:
    """Settings of `prepare_study`.

    Attributes:
      fault: Name of a fault model, see `FAULTS`.
      fault_settings: What is set of the fault model, see `named_fault`.
      on: What it hits: ``"weights"``, ``"features"``, or ``"both"`` at the same rate;
        ``None``: what it is meant for.
      rates: Rates in [0, 1], or sigmas from 0 on; empty: those of the fault model.
      trials: Trials of each rate, at least 2; with a margin, at most so many.
      where: Regular expression searched for in the names of leaves or sites; ``None``:
        all.
      permanent: Whether faults of features are the same for all images of a trial.
      margin: Stop a rate once its accuracy is known to this; ``None``: never.
      margin_method: How that is known: ``"empirical_bernstein"`` is rigorous,
        ``"student_t"`` needs several times fewer trials and is approximate; see
        `Margin`.
      level: Confidence level of all intervals, in (0, 1).
      map_trials: Trials of each point of the vulnerability map; 0: no map.
      feature_bits: Width, 2 to 16, of the fixed-point codes whose bits a map of
        features flips; ``None``: the bits of the dtype.
      over: How the trials of a unit run: ``"vmap"``, ``"map"`` or how many at a time;
        chosen if ``None``, and so are the next two.
      unit: Trials of a unit.
      batch: Images at a time.

    Raises:
      TypeError: If a number is not whole.
      ValueError: If a field is out of range, there is no such fault, or it has no such
        setting.

    Examples:
      >>> StudySettings(fault="mibb").target, StudySettings().values
      ('features', (1e-07, 1e-06, 1e-05, 0.0001))
    """

    fault: str = "bit-flip"
    fault_settings: Mapping[str, Any] = dataclasses.field(
        default_factory=dict, hash=False
    )
    on: str | None = None
    rates: tuple[float, ...] = ()
    trials: int = 32
    where: str | None = None
    permanent: bool = False
    margin: float | None = None
    margin_method: str = "empirical_bernstein"
    level: float = 0.95
    map_trials: int = 0
    feature_bits: int | None = None
    over: str | int | None = None
    unit: int | None = None
    batch: int | None = None

    def __post_init__(self):
        """Checks the fields."""
        object.__setattr__(self, "fault_settings", dict(self.fault_settings))
        model = self.model
        if self.on not in (None, *_TARGETS):
            known = ", ".join(map(repr, _TARGETS))
            raise ValueError(f"on must be one of {known}, got {self.on!r}")
        checks.rates("rates", self.rates, most=model.most)
        if len(set(self.rates)) < len(self.rates):
            raise ValueError(f"rates must differ, got {list(self.rates)}")
        if checks.positive("trials", self.trials) < 2:
            raise ValueError("trials must be at least 2: one trial has no interval")
        look_level(1, level=self.level)
        self._check_map()
        if self.over is not None:
            check_over(self.over)
        for name in ("unit", "batch"):
            if getattr(self, name) is not None:
                checks.positive(name, getattr(self, name))
        if self.target == "weights":
            if self.permanent:
                raise ValueError(
                    "permanent is of features: faults of weights always are"
                )
            if "tree_width" in self.fault_settings:
                raise ValueError("tree_width is of features: nothing computes a weight")
        if self.margin_method not in _MARGIN_METHODS:
            known = " or ".join(map(repr, _MARGIN_METHODS))
            raise ValueError(
                f"margin_method must be {known}, got {self.margin_method!r}"
            )
        if self.margin is not None and not 0 < self.margin < 1:
            raise ValueError(f"margin must be in (0, 1), got {self.margin}")
        if self.stop is not None and self.trials <= self.stop.least_trials():
            raise ValueError(
                f"margin={self.margin:g} needs more than {self.stop.least_trials():,} "
                f"trials to stop before the last (by {self.margin_method}), got "
                f"trials={self.trials}"
            )

    @property
    def target(self) -> str:
        """``"weights"``, ``"features"`` or ``"both"``."""
        return self.on or self.model.on

    @property
    def values(self) -> tuple[float, ...]:
        """The rates."""
        return self.rates or self.model.rates

    @property
    def stop(self) -> Margin | None:
        """The rule that ends a rate early."""
        if self.margin is None:
            return None
        return Margin(
            margin=self.margin, count="total.correct", out_of="total.images",
            method=self.margin_method, level=self.level,
        )  # fmt: skip

    @property
    def model(self) -> NamedFault:
        """The fault model, with what is set of it."""
        return named_fault(self.fault, self.fault_settings)

    def _check_map(self) -> None:
        if self.map_trials and checks.positive("map_trials", self.map_trials) < 2:
            raise ValueError("map_trials must be at least 2: one has no interval")
        if self.map_trials and self.target == "both":
            raise ValueError("a map is of weights or of features: on must say of which")
        if self.feature_bits is None:
            return
        check_bits(self.feature_bits, name="feature_bits")
        if not self.map_trials or self.target != "features":
            raise ValueError("feature_bits are of a map of features, and there is none")


def begin_parts(folder: pathlib.Path, parts: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes down what a study was begun with, or checks that it is the same.

    All is checked before anything is written, and nobody else writes in between.

    Args:
      folder: Where it is written; made if need be.
      parts: JSON values by the name that the user gave them by, of every part by its
        name.

    Raises:
      ValueError: If a part was begun with other ones (the first that differs is
        named), or by a jeff that wrote down other things.
      OSError: If it cannot be written, or somebody else is writing there.

    Examples:
      >>> import tempfile
      >>> folder = pathlib.Path(tempfile.mkdtemp())
      >>> begin_parts(folder, {"curve": {"trials": 8, "seed": 0}})
      >>> try:
      ...     begin_parts(folder, {"curve": {"trials": 9, "seed": 0}})
      ... except ValueError as error:
      ...     print(str(error).replace(str(folder), "DIR"))
      trials: the sweep in 'DIR' was begun with trials=8, now it is 9; give another
      folder, or delete this one
    """
    folder.mkdir(parents=True, exist_ok=True)
    with folder_lock(folder):
        new = [
            (file, wanted)
            for name, settings in parts.items()
            if not _there(
                file := folder / f"{name}.json",
                wanted := json.loads(json.dumps({_KEY: _FORMAT, **settings})),
            )
        ]
        for file, wanted in new:
            write_atomically(file, json.dumps(wanted, indent=1) + "\n")


def _there(file: pathlib.Path, wanted: dict[str, Any]) -> bool:
    """Whether a part was begun, with these settings; others are an error."""
    try:
        there = json.loads(file.read_text())
        if not isinstance(there, dict):
            raise ValueError("it holds no object")
        was = there.get(_KEY, 1)
    except FileNotFoundError:
        return False
    except ValueError as error:
        raise ValueError(f"{str(file)!r} is damaged: {error}") from None
    if was != _FORMAT:
        raise ValueError(
            f"the study in {str(file.parent)!r} was begun by another jeff ({_KEY} "
            f"{was}, now {_FORMAT}) and cannot go on; its report can be read, and its "
            "units by read_sweep; give another folder"
        )
    for name in {**there, **wanted}:
        was, now = there.get(name), wanted.get(name)
        if was != now:
            raise ValueError(
                f"{name}: the sweep in {str(file.parent)!r} was begun with "
                f"{name}={was!r}, now it is {now!r}; give another folder, or delete "
                "this one"
            )
    return True
