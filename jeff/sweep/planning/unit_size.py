"""How much of a sweep fits the memory at a time, read from compiled programs."""

from collections.abc import Collection
from typing import Any, NamedTuple

from jeff.sweep.planning import memory
from jeff.sweep.planning.arguments import Sweep
from jeff.sweep.planning.memory import megabytes
from jeff.sweep.planning.plan import counted
from jeff.sweep.planning.unit import TracedTrial, compiled, trace_evaluate

__all__ = ["Fitted", "Size", "even", "fit"]

_SMALL = 4  # examples or trials of the larger of the two small programs
_TRIES = 5  # compilations until a unit fits


class Size(NamedTuple):
    """How much is computed at a time.

    Attributes:
      group: Trials at a time.
      unit: Trials of a unit.
      batch: Examples at a time.

    Examples:
      >>> Size(group=4, unit=8, batch=100).at_a_time
      400
    """

    group: int
    unit: int
    batch: int

    @property
    def at_a_time(self) -> int:
        """Evaluations at a time."""
        return self.group * self.batch


class Fitted(NamedTuple):
    """Sizes that fit, and what was made to know it.

    Attributes:
      traced: The trial, traced for the batch that was chosen.
      size: What was chosen.
      executable: The unit as compiled; ``None`` if there was nothing to choose.
      why: A sentence.
    """

    traced: TracedTrial
    size: Size
    executable: Any | None
    why: str


def fit(
    sweep: Sweep,
    traced: TracedTrial,
    size: Size,
    free: Collection[str],
    device: Any,
    budget_bytes: int | None,
) -> Fitted:
    """Computes less at a time, until the compiled unit fits the budget.

    Args:
      sweep: The sweep.
      traced: Its trial, traced for the batch of `size`.
      size: The most of each.
      free: Fields of `size` that may become smaller. Groups do before batches, and a
        unit, which then is one group, after them.
      device: What it is compiled for.
      budget_bytes: What intermediate results may take; ``None``: as the device has.

    Returns:
      The sizes, with the compiled unit.
    """
    if not free:
        rows = counted(size.batch, "example")
        return Fitted(traced, size, None, f"Batches have {rows}, as was asked for.")
    if budget_bytes is None:
        budget, phrase = memory.device_budget(device)
    else:
        budget, phrase = budget_bytes, f"{megabytes(budget_bytes)}, as was asked for"
    if _written(traced) * size.group > budget:
        base, each = _growth(sweep, traced, size, free, device)
        size = _smaller(sweep, size, free, (budget - base) / each)
    for attempt in range(_TRIES):
        if size.batch != traced.batch:
            traced = trace_evaluate(sweep, traced.draw, size.batch)
        executable = compiled(sweep, traced, size.group, size.unit, device)
        taken = memory.temporary_bytes(executable)
        if taken is None or taken <= budget or attempt == _TRIES - 1:
            break
        less = _smaller(sweep, size, free, 0.9 * size.at_a_time * budget / taken)
        if less == size:
            break
        size = less
    why = _sentence(traced, taken, budget, phrase)
    return Fitted(traced, size, executable, why)


def _smaller(sweep: Sweep, size: Size, free: Collection[str], most: float) -> Size:
    """At most so many evaluations at a time, if they can be."""
    group, unit, batch = size
    if "group" in free:
        group = even(unit, max(1, min(group, int(most / batch))))
    if "batch" in free:
        batch = even(sweep.examples, max(1, min(batch, int(most / group))))
    if "unit" in free:
        group = unit = even(sweep.trials, max(1, min(unit, int(most / batch))))
    return Size(group, unit, batch)


def _growth(sweep, traced, size, free, device) -> tuple[float, float]:
    """Bytes that a unit takes, as a constant and per evaluation at a time.

    Two small programs are compiled; they run at no time.
    """
    rows = 1 if "batch" in free else size.batch
    larger = (rows, _SMALL)
    if size.group == 1:
        larger = (_SMALL if "batch" in free else rows, 1)
    found = []
    for batch, group in ((rows, 1), larger):
        small = trace_evaluate(sweep, traced.draw, batch)
        taken = memory.temporary_bytes(compiled(sweep, small, group, group, device))
        if taken is None:
            return 0.0, max(1.0, _written(traced) / traced.batch)
        found.append((batch * group, taken))
    (few, least), (many, most) = found
    each = (most - least) / (many - few) if many > few else 0.0
    each = each if each > 0 else least / few
    return max(0.0, least - few * each), max(1.0, each)


def _written(traced: TracedTrial) -> int:
    """More than one trial on one batch takes at a time."""
    programs = (traced.draw.jaxpr, traced.evaluate.jaxpr)
    return sum(map(memory.written_bytes, programs))


def _sentence(traced: TracedTrial, size: int | None, budget: int, phrase: str) -> str:
    """Why batches have the size they have."""
    which = "all at a time" if traced.batches == 1 else f"{traced.batches:,} batches"
    how = f"Batches have {counted(traced.batch, 'example')}, {which}"
    if size is None:
        return f"{how}; the compiler does not say how much memory that takes."
    fits = "fit" if size <= budget else "do NOT fit"
    return (
        f"{how}: the unit's intermediate results take {megabytes(size)} as compiled, "
        f"and {fits} the budget ({phrase})."
    )


def even(total: int, most: int) -> int:
    """The least size of parts, when a total is cut into as few as can be.

    Args:
      total: What is cut.
      most: The largest size of a part.

    Returns:
      The size.

    Examples:
      >>> even(100, 64)
      50
    """
    return -(-total // -(-total // most))
