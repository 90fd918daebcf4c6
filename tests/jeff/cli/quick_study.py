"""A study that is over at once; its preset has the name of one of the demo's."""

import dataclasses

from jeff.evaluate import Measure, Outcome, Study


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Nothing to set but a number."""

    value: float = 1.0


def run(settings, *, key_seed, progress):
    """Returns the number."""
    progress.stage("think", 1)
    return Outcome(measures=[Measure("value", settings.value + key_seed)])


STUDY = Study(presets={"default": Settings(), "sleep": Settings()}, run=run)
