"""How a sweep is best computed: which way, how much at a time, on which devices."""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from jeff.program.checksum import program_checksum
from jeff.sweep.checks import positive
from jeff.sweep.planning import memory
from jeff.sweep.planning.arguments import Sweep, check_over, checked
from jeff.sweep.planning.devices import chosen_devices
from jeff.sweep.planning.memory import megabytes
from jeff.sweep.planning.own_weights import own_weights
from jeff.sweep.planning.plan import Plan, counted
from jeff.sweep.planning.unit import TracedTrial, trace_draw, trace_evaluate
from jeff.sweep.planning.unit_size import Size, even, fit
from jeff.sweep.trial import Trial

__all__ = ["Prepared", "make_plan", "prepare"]

EVALUATIONS = 4096
"""Examples times trials of a unit, about: enough that calling it costs little, and few
enough that a stopped sweep loses little."""
CACHE = 1 << 19
"""Bytes of the largest array up to which trials run together on a CPU."""


class Prepared(NamedTuple):
    """A plan with what was made on the way.

    Attributes:
      plan: The plan.
      traced: The trial, traced for the plan's batch.
      executable: The unit, compiled for the first device; ``None`` if nothing had to
        be chosen by its size.
    """

    plan: Plan
    traced: TracedTrial
    executable: Any | None

    def checksums(self) -> dict[str, str]:
        """Checksums of the traced programs by name."""
        return {
            "program.draw": program_checksum(self.traced.draw.jaxpr),
            "program.evaluate": program_checksum(self.traced.evaluate.jaxpr),
        }


def make_plan(
    trial: Trial,
    key: jax.Array,
    *,
    rates: Sequence[float],
    trials: int,
    data: Any,
    designs: Any = None,
    over: str | int | None = None,
    unit: int | None = None,
    batch: int | None = None,
    budget_bytes: int | None = None,
    devices: int | Sequence[Any] | Mesh | None = None,
) -> Plan:
    """Chooses how a sweep is computed, by looking at its programs; runs nothing.

    A unit is about 4,096 evaluations. Its trials run together (``"vmap"``) unless a
    convolution or product would then get weights of its own for each trial, or, on
    CPUs, arrays would leave the caches. If the unit's intermediate results might not
    fit the budget, what two small units take is read from the compiled programs and
    extrapolated: groups of trials run together, as many as fit, or one trial at a time
    on batches of the data. The unit is compiled, and less is computed at a time if it
    takes more than the budget.

    Args:
      trial: What one trial does.
      key: A typed key.
      rates: Finite numbers from 0 on. Rates above 1 are refused by campaigns with a
        fault model that refuses them; its sigmas may be larger.
      trials: Trials of each point.
      data: A pytree of arrays ``[examples, ...]``.
      designs: A pytree of arrays ``[designs, ...]``, or ``None``.
      over: How trials of a unit run: ``"vmap"``, all at a time; ``"map"``, one at a
        time; or how many at a time, at most; chosen if ``None``.
      unit: Trials of a unit; chosen if ``None``.
      batch: Examples at a time; chosen if ``None``.
      budget_bytes: What the intermediate results of a unit may take; if ``None``, a
        quarter of the device's memory, or 1 GiB where it does not say how much it has.
      devices: Devices of this process, or how many, or a mesh: those of its devices
        that are of this process; all if ``None``.

    Returns:
      The plan, with its reasons.

    Raises:
      TypeError: If an argument is of the wrong kind, or statistics cannot be summed.
      ValueError: If a value cannot be swept.

    Examples:
      >>> import jax.numpy as jnp
      >>> weights = jax.random.normal(jax.random.key(1), (8, 8))
      >>> def draw(key, rate, design):  # weights of its own for every trial
      ...     kept = jax.random.bernoulli(key, 1.0 - rate, weights.shape)
      ...     return jnp.where(kept, weights, 0.0)
      >>> def evaluate(weights, batch):
      ...     y = jax.nn.relu(batch.data @ weights) @ weights
      ...     return jnp.sum(jnp.where(batch.valid, y.argmax(-1) == 0, False))
      >>> plan = make_plan(Trial(draw, evaluate), jax.random.key(0), rates=[0.1],
      ...     trials=100, data=jnp.ones((64, 8)), devices=1)
      >>> print(plan.explain().splitlines()[0])
      map over units of 50 trials, batches of 64 examples, 1 device, 1 process
    """
    sweep = checked(trial, key, rates=rates, trials=trials, data=data, designs=designs)
    return prepare(
        sweep, over=over, unit=unit, batch=batch, budget_bytes=budget_bytes,
        devices=chosen_devices(devices),
    ).plan  # fmt: skip


def prepare(
    sweep: Sweep,
    *,
    over: str | int | None,
    unit: int | None,
    batch: int | None,
    devices: Sequence[Any],
    budget_bytes: int | None = None,
    reasons: tuple[str, ...] = (),
) -> Prepared:
    """Chooses what is not given, and compiles.

    Args:
      sweep: The checked arguments.
      over: As for `make_plan`, and so are the others.
      unit: Trials of a unit.
      batch: Examples at a time.
      devices: The devices.
      budget_bytes: What a unit may take.
      reasons: Sentences to begin with.

    Returns:
      The plan and what was made on the way.

    Raises:
      TypeError: As `make_plan`.
      ValueError: As `make_plan`.
    """
    given = {"unit": unit, "batch": batch}
    sizes = {n: positive(n, v) for n, v in given.items() if v is not None}
    if over is not None:
        over = check_over(over)
    if budget_bytes is not None:
        positive("budget_bytes", budget_bytes)
    kind = devices[0].platform
    traced = trace_evaluate(
        sweep, trace_draw(sweep), sizes.get("batch", sweep.examples)
    )
    unit, why_unit = _unit(sweep, sizes.get("unit"))
    if over is None:
        group, why = _group(sweep, traced, unit, kind)
    else:
        group, why = _asked(over, unit)
    most = Size(group, unit, traced.batch)
    free = _free(over, most, sizes)
    fitted = fit(sweep, traced, most, free, devices[0], budget_bytes)
    size = fitted.size
    if size.unit != unit:
        why_unit = f"A unit has {counted(size.unit, 'trial')}, for its memory's sake."
    elif size.group != group:
        why += (
            f" But only {size.group:,} of {unit:,} at a time, for their memory's sake."
        )
    processes = jax.process_count()
    where = counted(len(devices), f"{kind} device")
    several = f" in each of {processes:,} processes" if processes > 1 else ""
    dealt = f"Units are dealt out to {where}{several}; no bit depends on that."
    plan = Plan(
        **size._asdict(), devices=len(devices), processes=processes,
        reasons=(*reasons, why, why_unit, fitted.why, dealt),
    )  # fmt: skip
    return Prepared(plan, fitted.traced, fitted.executable)


def _asked(over: str | int, unit: int) -> tuple[int, str]:
    """Trials at a time where that was said."""
    if isinstance(over, str):
        return {"vmap": unit, "map": 1}[over], f"{over} was asked for."
    return min(over, unit), f"{counted(over, 'trial')} at a time was asked for."


def _free(over: str | int | None, most: Size, given: Collection[str]) -> set[str]:
    """What may be chosen by its memory."""
    free = {"batch"} - set(given)
    if over is None and most.group > 1:
        free.add("group")
    if over == "vmap" and "unit" not in given:
        free.add("unit")
    return free


def _group(
    sweep: Sweep, traced: TracedTrial, unit: int, platform: str
) -> tuple[int, str]:
    """How many trials run together; benchmarks/sweep_plan.py has what was measured."""
    found = own_weights(sweep, traced)
    named = [
        counted(n, what)
        for n, what in zip(found, ("convolution", "product"), strict=True)
        if n
    ]
    if not named:
        programs = (traced.draw.jaxpr, traced.evaluate.jaxpr)
        each = max(map(memory.largest_bytes, programs))
        if platform == "cpu" and unit * each > CACHE:
            group = even(unit, max(1, CACHE // each))
            how = f"{group:,} at a time" if group > 1 else "one after another"
            return group, (
                f"Trials run {how}: all of a unit would make arrays of "
                f"{megabytes(unit * each)}, and on a CPU larger batches only pay while "
                f"they stay in its caches ({megabytes(CACHE)})."
            )
        return unit, (
            "Trials run together: that gives no convolution more groups and no product "
            "a batch axis, it only makes them larger."
        )
    differ = f"weights differ from trial to trial (in {' and '.join(named)})"
    if platform != "cpu" and not found.convolutions:
        return unit, f"Trials run together: {differ}, as a batch of products."
    return 1, (
        f"Trials run one after another: {differ}, and together they would be grouped "
        "convolutions or batched products, which take more processor time."
    )


def _unit(sweep: Sweep, given: int | None) -> tuple[int, str]:
    if given is not None:
        return given, f"A unit has {counted(given, 'trial')}, as was asked for."
    most = max(1, EVALUATIONS // sweep.examples)
    unit = even(sweep.trials, most)
    return unit, (
        f"A unit has {counted(unit, 'trial')}, each on "
        f"{counted(sweep.examples, 'example')}: {unit * sweep.examples:,} evaluations, "
        f"where about {EVALUATIONS:,} make a call cheap and a stop harmless."
    )
