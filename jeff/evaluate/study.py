"""The contract between a system and the command line."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

from jeff.evaluate.measure import Outcome

__all__ = ["NoProgress", "Progress", "RunStudy", "Study"]


class Progress(Protocol):
    """Where a running study says how far it is.

    Raises:
      KeyboardInterrupt: From any call, if the user has asked to stop.

    Examples:
      >>> class Printed:
      ...     def stage(self, name, total):
      ...         print(f"{name}: {total} steps")
      ...     def advance(self, steps=1):
      ...         print("+", steps)
      >>> progress: Progress = Printed()
      >>> progress.stage("calibrate", 2)
      calibrate: 2 steps
      >>> progress.advance()
      + 1
    """

    def stage(self, name: str, total: int) -> None:
        """Starts the next stage; the one before is over.

        Args:
          name: What is being done, a verb.
          total: Number of steps, of about equal length.
        """
        ...

    def advance(self, steps: int = 1) -> None:
        """Says that more steps of the current stage are done.

        Args:
          steps: How many.
        """
        ...


class NoProgress:
    """A `Progress` that shows nothing, for use as a library.

    Examples:
      >>> progress = NoProgress()
      >>> progress.stage("calibrate", 3)
      >>> progress.advance()
    """

    def stage(self, name: str, total: int) -> None:
        """Does nothing."""
        del name, total

    def advance(self, steps: int = 1) -> None:
        """Does nothing."""
        del steps


class RunStudy(Protocol):
    """The function behind ``jeff run SYSTEM``."""

    def __call__(self, settings: Any, *, key_seed: int, progress: Progress) -> Outcome:
        """Runs the study.

        Args:
          settings: One of the study's presets, perhaps with fields replaced.
          key_seed: Seed of every random draw, for ``jax.random.key``.
          progress: Told about stages and steps.

        Returns:
          Measures, tables and figures. Same settings and seed, same outcome, times
          apart.

        Raises:
          Exception: Anything; the command line reports it in one line and writes
            nothing for this system.
        """
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """What ``jeff run SYSTEM`` runs: named settings and a function.

    Attributes:
      presets: Settings by name, the default one first: instances of one frozen
        dataclass, validated when made, so that ``--set field=value`` can replace
        fields by name and type.
      run: ``run(settings, *, key_seed, progress) -> Outcome``.

    Raises:
      ValueError: If there is no preset.
      TypeError: If the presets are not instances of one frozen dataclass.

    Examples:
      >>> import dataclasses
      >>> from jeff.evaluate import Measure, NoProgress, Outcome
      >>> @dataclasses.dataclass(frozen=True, kw_only=True)
      ... class Settings:
      ...     sides: int = 6
      >>> def run(settings, *, key_seed, progress):
      ...     progress.stage("throw", 1)
      ...     value = key_seed % settings.sides
      ...     progress.advance()
      ...     return Outcome(measures=[Measure("eyes", value)])
      >>> study = Study(presets={"default": Settings()}, run=run)
      >>> outcome = study.run(Settings(sides=4), key_seed=7, progress=NoProgress())
      >>> outcome.measures[0].value
      3
    """

    presets: Mapping[str, Any]
    run: RunStudy

    def __post_init__(self):
        """Checks the presets."""
        if not self.presets:
            raise ValueError("presets must have at least one entry")
        kinds = {type(p) for p in self.presets.values()}
        names = sorted(k.__name__ for k in kinds)
        if len(kinds) > 1:
            raise TypeError(f"presets must be of one type, not {', '.join(names)}")
        (kind,) = kinds
        parameters = getattr(kind, "__dataclass_params__", None)
        if parameters is None or not parameters.frozen:
            raise TypeError(f"presets must be a frozen dataclass, not {names[0]}")
