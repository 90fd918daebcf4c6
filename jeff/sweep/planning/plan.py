"""How a sweep is computed, and why, in words."""

import dataclasses

from jeff.sweep import checks

__all__ = ["Plan"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How a sweep is computed.

    The first three fields decide the last digits of floating statistics, so they belong
    to a sweep's settings. The others only say who computes.

    Attributes:
      group: Trials that are computed at a time, under `jax.vmap`: folded into the
        batch where weights are the same for all. The groups of a unit follow each
        other as in `jax.lax.map`. As large as the unit: all together; 1: one after
        another.
      unit: Trials of one unit, which is one call of the compiled program.
      batch: Examples that are evaluated at a time.
      devices: Devices of this process.
      processes: Processes.
      reasons: Why, a sentence per choice.

    Raises:
      ValueError: If a number is not positive, or a group is larger than a unit.
      TypeError: If a number is not whole.

    Examples:
      >>> plan = Plan(group=1, unit=8, batch=64, reasons=("Weights differ.",))
      >>> print(plan.explain())
      map over units of 8 trials, batches of 64 examples, 1 device, 1 process
      - Weights differ.
      >>> print(Plan(group=4, unit=8, batch=64, devices=2).explain())
      groups of 4 over units of 8 trials, batches of 64 examples, 2 devices, 1 process
    """

    group: int
    unit: int
    batch: int
    devices: int = 1
    processes: int = 1
    reasons: tuple[str, ...] = ()

    def __post_init__(self):
        """Checks the fields."""
        for name in ("group", "unit", "batch", "devices", "processes"):
            checks.positive(name, getattr(self, name))
        if self.group > self.unit:
            raise ValueError(
                f"group must be at most the unit's {counted(self.unit, 'trial')}, got "
                f"{self.group}"
            )

    def explain(self) -> str:
        """The plan and its reasons as text, a line each."""
        how = {self.unit: "vmap", 1: "map"}.get(self.group, f"groups of {self.group:,}")
        parts = [
            f"{how} over units of {counted(self.unit, 'trial')}",
            f"batches of {counted(self.batch, 'example')}",
            counted(self.devices, "device"),
            counted(self.processes, "process", "processes"),
        ]
        return "\n".join([", ".join(parts), *(f"- {r}" for r in self.reasons)])


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun.

    Args:
      number: How many.
      one: The noun for one.
      many: The noun for other numbers; `one` with an s if ``None``.

    Returns:
      Both, with thousands set apart.

    Examples:
      >>> counted(1, "trial"), counted(4096, "trial")
      ('1 trial', '4,096 trials')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"
