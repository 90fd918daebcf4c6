"""How a sweep is best computed: which way, how much at a time, on which devices."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from jeff.program.checksum import program_checksum
from jeff.sweep.checks import positive
from jeff.sweep.planning import memory
from jeff.sweep.planning.arguments import Sweep, check_over, checked
from jeff.sweep.planning.memory import megabytes
from jeff.sweep.planning.own_weights import own_weights
from jeff.sweep.planning.plan import Plan, counted
from jeff.sweep.planning.unit import TracedTrial, trace_draw, trace_evaluate
from jeff.sweep.planning.unit_size import even, fit
from jeff.sweep.trial import Trial

__all__ = ["Prepared", "chosen_devices", "make_plan", "prepare"]

EVALUATIONS = 4096
"""Examples times trials of a unit, about: enough that calling it costs little, and few
enough that a stopped sweep loses little."""
CACHE = 1 << 20
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
    over: str | None = None,
    unit: int | None = None,
    batch: int | None = None,
    budget_bytes: int | None = None,
    devices: int | Sequence[Any] | None = None,
) -> Plan:
    """Chooses how a sweep is computed, by looking at its programs; runs nothing.

    Trials run together (``"vmap"``) unless a convolution or product would then get
    weights of its own for each trial, or, on CPUs, arrays would leave the caches. A
    unit is about 4,096 evaluations. A batch is as large as the data if the unit's
    intermediate results fit the budget: if they might not, what two small units take is
    read from the compiled programs and extrapolated. The chosen unit is compiled, and
    made smaller if it takes more than the budget.

    Args:
      trial: What one trial does.
      key: A typed key.
      rates: Fractions in [0, 1].
      trials: Trials of each point.
      data: A pytree of arrays ``[examples, ...]``.
      designs: A pytree of arrays ``[designs, ...]``, or ``None``.
      over: ``"vmap"`` or ``"map"``; chosen if ``None``.
      unit: Trials of a unit; chosen if ``None``.
      batch: Examples at a time; chosen if ``None``.
      budget_bytes: What the intermediate results of a unit may take; if ``None``, a
        quarter of the device's memory, or 1 GiB where it does not say how much it has.
      devices: Devices of this process, or how many; all if ``None``.

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


def chosen_devices(devices: int | Sequence[Any] | None) -> tuple[Any, ...]:
    """The devices of this process that are to be used.

    Args:
      devices: Devices, or how many; all if ``None``.

    Returns:
      The devices.

    Raises:
      TypeError: If `devices` is neither.
      ValueError: If this process does not have them, or they are of several kinds.

    Examples:
      >>> chosen_devices(1) == tuple(jax.local_devices()[:1])
      True
    """
    chosen = _chosen(devices, tuple(jax.local_devices()))
    kinds = sorted({f"{d.platform} {d.device_kind}" for d in chosen})
    if len(kinds) > 1:  # each kind rounds in its own way
        raise ValueError(
            f"devices must be of one kind, they are of {', '.join(map(repr, kinds))}; "
            "name those of one kind, as in devices=[...]"
        )
    return chosen


def _chosen(devices: Any, here: tuple[Any, ...]) -> tuple[Any, ...]:
    if devices is None:
        return here
    if isinstance(devices, Sequence):
        if not devices:
            raise ValueError("devices must name at least one device")
        for device in devices:
            if not isinstance(device, jax.Device):
                raise TypeError(f"devices must be JAX devices, got {device!r}")
            if device not in here:
                raise ValueError(f"devices: {device} is not of this process: {here}")
        return tuple(devices)
    number = positive("devices", devices)
    if number > len(here):
        raise ValueError(f"devices={number}, but this process has {len(here)}")
    return here[:number]


def prepare(
    sweep: Sweep,
    *,
    over: str | None,
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
        check_over(over)
    if budget_bytes is not None:
        positive("budget_bytes", budget_bytes)
    kind = devices[0].platform
    traced = trace_evaluate(
        sweep, trace_draw(sweep), sizes.get("batch", sweep.examples)
    )
    unit, why_unit = _unit(sweep, sizes.get("unit"))
    over, why = over, f"{over} was asked for."
    if over is None:
        over, why = _over(sweep, traced, unit, kind)
    fitted = fit(sweep, traced, over, unit, sizes, devices[0], budget_bytes)
    if fitted.unit != unit:
        why_unit = f"A unit has {counted(fitted.unit, 'trial')}, for its memory's sake."
    processes = jax.process_count()
    where = counted(len(devices), f"{kind} device")
    several = f" in each of {processes:,} processes" if processes > 1 else ""
    dealt = f"Units are dealt out to {where}{several}; no bit depends on that."
    plan = Plan(
        over=over, unit=fitted.unit, batch=fitted.traced.batch,
        devices=len(devices), processes=processes,
        reasons=(*reasons, why, why_unit, fitted.why, dealt),
    )  # fmt: skip
    return Prepared(plan, fitted.traced, fitted.executable)


def _over(
    sweep: Sweep, traced: TracedTrial, unit: int, platform: str
) -> tuple[str, str]:
    """Whether trials run together; what was measured is in benchmarks/sweep_plan.py."""
    found = own_weights(sweep, traced)
    named = [
        counted(n, what)
        for n, what in zip(found, ("convolution", "product"), strict=True)
        if n
    ]
    if not named:
        programs = (traced.draw.jaxpr, traced.evaluate.jaxpr)
        size = unit * max(map(memory.largest_bytes, programs))
        if platform == "cpu" and size > CACHE:
            return "map", (
                "Trials run one after another: together they would make arrays of "
                f"{megabytes(size)}, and on a CPU larger batches only pay while they "
                f"stay in its caches ({megabytes(CACHE)})."
            )
        return "vmap", (
            "Trials run together: that gives no convolution more groups and no product "
            "a batch axis, it only makes them larger."
        )
    differ = f"weights differ from trial to trial (in {' and '.join(named)})"
    if platform != "cpu" and not found.convolutions:
        return "vmap", f"Trials run together: {differ}, as a batch of products."
    return "map", (
        f"Trials run one after another: {differ}, and together they would be grouped "
        "convolutions or batched products, which are slower."
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
