"""How much of a sweep fits the memory at a time, read from compiled programs."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from jeff.sweep.planning import memory
from jeff.sweep.planning.arguments import Sweep
from jeff.sweep.planning.memory import megabytes
from jeff.sweep.planning.plan import counted
from jeff.sweep.planning.unit import TracedTrial, compiled, trace_evaluate

__all__ = ["Fitted", "even", "fit"]

_SMALL = 4  # examples or trials of the larger of the two small programs
_TRIES = 5  # compilations until a unit fits


class Fitted(NamedTuple):
    """Sizes that fit, and what was made to know it.

    Attributes:
      traced: The trial, traced for the batch that was chosen.
      unit: Trials of a unit.
      executable: The unit as compiled; ``None`` if there was nothing to choose.
      why: A sentence.
    """

    traced: TracedTrial
    unit: int
    executable: Any | None
    why: str


def fit(
    sweep: Sweep,
    traced: TracedTrial,
    over: str,
    unit: int,
    given: Mapping[str, int],
    device: Any,
    budget_bytes: int | None,
) -> Fitted:
    """Makes batches, and then units, smaller until the compiled unit fits the budget.

    Args:
      sweep: The sweep.
      traced: Its trial, traced for the largest batch.
      over: ``"vmap"`` or ``"map"``.
      unit: The most trials of a unit.
      given: Which of ``"unit"`` and ``"batch"`` must stay as they are.
      device: What it is compiled for.
      budget_bytes: What intermediate results may take; ``None``: as the device has.

    Returns:
      The sizes, with the compiled unit.
    """
    if {"batch", "unit"} <= set(given):
        rows = counted(traced.batch, "example")
        return Fitted(traced, unit, None, f"Batches have {rows}, as was asked for.")
    if budget_bytes is None:
        budget, phrase = memory.device_budget(device)
    else:
        budget, phrase = budget_bytes, f"{megabytes(budget_bytes)}, as was asked for"
    together = over == "vmap"

    def smaller(batch: int, unit: int, at_a_time: float) -> tuple[int, int]:
        """At most so many evaluations at a time, if they can be."""
        if "batch" not in given:
            rows = int(at_a_time / (unit if together else 1))
            batch = even(sweep.examples, min(batch, max(1, rows)))
        if together and "unit" not in given:
            unit = even(sweep.trials, max(1, min(unit, int(at_a_time / batch))))
        return batch, unit

    batch = traced.batch
    at_a_time = batch * (unit if together else 1)
    if _written(traced) * (unit if together else 1) > budget:
        base, each = _growth(sweep, traced, over, given, device)
        batch, unit = smaller(batch, unit, max(1.0, (budget - base) / each))
    for attempt in range(_TRIES):
        if batch != traced.batch:
            traced = trace_evaluate(sweep, traced.draw, batch)
        executable = compiled(sweep, traced, over, unit, device)
        size = memory.temporary_bytes(executable)
        if size is None or size <= budget or attempt == _TRIES - 1:
            break
        at_a_time = 0.9 * batch * (unit if together else 1) * budget / size
        less = smaller(batch, unit, max(1.0, at_a_time))
        if less == (batch, unit):
            break
        batch, unit = less
    why = _sentence(traced, size, budget, phrase)
    return Fitted(traced, unit, executable, why)


def _growth(sweep, traced, over, given, device) -> tuple[float, float]:
    """Bytes that a unit takes, as a constant and per evaluation at a time.

    Two small programs are compiled; they run at no time.
    """
    rows = given.get("batch", 1)
    larger = (rows, _SMALL) if over == "vmap" else (_SMALL, 1)
    if over == "map" and "batch" in given:
        larger = (rows, 1)
    sizes = []
    for batch, unit in ((rows, 1), larger):
        small = trace_evaluate(sweep, traced.draw, batch)
        size = memory.temporary_bytes(compiled(sweep, small, over, unit, device))
        if size is None:
            return 0.0, max(1.0, _written(traced) / traced.batch)
        sizes.append((batch * unit, size))
    (few, least), (many, most) = sizes
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
