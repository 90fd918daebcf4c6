"""What a fault study is asked to do, as one frozen value."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from jeff.io import write_atomically
from jeff.io.folder_lock import folder_lock
from jeff.sweep import checks
from jeff.sweep.planning.arguments import check_over
from jeff.sweep.statistics.stopping import Margin, look_level
from jeff.sweep.study.named_faults import NamedFault, named_fault

__all__ = ["StudySettings", "begin_parts"]

_MARGIN_METHODS = ("empirical_bernstein", "student_t")


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudySettings:
    """Settings of `prepare_study`.

    Attributes:
      fault: Name of a fault model, see `FAULTS`.
      on: What it hits, ``"weights"`` or ``"features"``; ``None``: what it is meant for.
      rates: Rates (or sigmas) in [0, 1]; empty: those of the fault model.
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
      over: How the trials of a unit run: ``"vmap"``, ``"map"`` or how many at a time;
        chosen if ``None``, and so are the next two.
      unit: Trials of a unit.
      batch: Images at a time.

    Raises:
      TypeError: If a number is not whole.
      ValueError: If a field is out of range, or there is no such fault.

    Examples:
      >>> StudySettings(fault="mibb").target, StudySettings().values
      ('features', (1e-07, 1e-06, 1e-05, 0.0001))
    """

    fault: str = "bit-flip"
    on: str | None = None
    rates: tuple[float, ...] = ()
    trials: int = 32
    where: str | None = None
    permanent: bool = False
    margin: float | None = None
    margin_method: str = "empirical_bernstein"
    level: float = 0.95
    map_trials: int = 0
    over: str | int | None = None
    unit: int | None = None
    batch: int | None = None

    def __post_init__(self):
        """Checks the fields."""
        self._model()
        if self.on not in (None, "weights", "features"):
            raise ValueError(f"on must be 'weights' or 'features', got {self.on!r}")
        checks.rates("rates", self.rates)
        if len(set(self.rates)) < len(self.rates):
            raise ValueError(f"rates must differ, got {list(self.rates)}")
        if checks.positive("trials", self.trials) < 2:
            raise ValueError("trials must be at least 2: one trial has no interval")
        look_level(1, level=self.level)
        if self.map_trials and checks.positive("map_trials", self.map_trials) < 2:
            raise ValueError("map_trials must be at least 2: one has no interval")
        if self.over is not None:
            check_over(self.over)
        for name in ("unit", "batch"):
            if getattr(self, name) is not None:
                checks.positive(name, getattr(self, name))
        if self.permanent and self.target == "weights":
            raise ValueError("permanent is of features: faults of weights always are")
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
        """``"weights"`` or ``"features"``."""
        return self.on or self._model().on

    @property
    def values(self) -> tuple[float, ...]:
        """The rates."""
        return self.rates or self._model().rates

    @property
    def stop(self) -> Margin | None:
        """The rule that ends a rate early."""
        if self.margin is None:
            return None
        return Margin(
            margin=self.margin, count="correct", out_of="images",
            method=self.margin_method, level=self.level,
        )  # fmt: skip

    def _model(self) -> NamedFault:
        return named_fault(self.fault)


def begin_parts(folder: pathlib.Path, parts: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes down what a study was begun with, or checks that it is the same.

    All is checked before anything is written, and nobody else writes in between.

    Args:
      folder: Where it is written; made if need be.
      parts: JSON values by the name that the user gave them by, of every part by its
        name.

    Raises:
      ValueError: If a part was begun with other ones; the first that differs is named.
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
                wanted := json.loads(json.dumps(dict(settings))),
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
    except FileNotFoundError:
        return False
    except ValueError as error:
        raise ValueError(f"{str(file)!r} is damaged: {error}") from None
    for name in {**there, **wanted}:
        was, now = there.get(name), wanted.get(name)
        if was != now:
            raise ValueError(
                f"{name}: the sweep in {str(file.parent)!r} was begun with "
                f"{name}={was!r}, now it is {now!r}; give another folder, or delete "
                "this one"
            )
    return True
