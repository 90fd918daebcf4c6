"""Plans: what they see in a program, what they choose, and that they say why."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff import sweep
from jeff.sweep import Plan, Trial
from jeff.sweep.planning import choose, memory, own_weights, unit, unit_size
from jeff.sweep.planning.arguments import checked
from jeff.sweep.planning.unit import trace_draw, trace_evaluate

KERNELS = [jnp.ones((3, 3, 1, 2)), jnp.ones((3, 3, 2, 2))]
MATRICES = [jnp.ones((4, 4)), jnp.ones((4, 4))]
IMAGES, ROWS = np.ones((6, 4, 4, 1), np.float32), np.ones((6, 4), np.float32)
KEY = jax.random.key(0)


def convolved(kernels, x):
    for kernel in kernels:
        x = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
    return x


def multiplied(matrices, x):
    def body(x, w):
        return jnp.tanh(x @ w), None

    return jax.lax.scan(body, x, jnp.stack(matrices))[0]


def weight_faults(apply, weights):
    def draw(key, rate, design):
        return [w * jax.random.uniform(key, w.shape) for w in weights]

    return Trial(draw, lambda w, b: jnp.sum(apply(w, b.data)))


def feature_faults(apply, weights):
    def evaluate(key, batch):
        x = batch.data * jax.random.uniform(key, batch.data.shape)
        x = jnp.einsum("bi...,bj...->bij", x, x)[:, :, 0] if x.ndim == 2 else x
        return jnp.sum(apply(weights, x))

    return Trial(lambda key, rate, design: key, evaluate)


class Executable:
    """A compiled unit that says it takes 1,000 bytes, and 100 per evaluation."""

    def __init__(self, group, batch):
        self.size = 1000 + 100 * batch * group

    def memory_analysis(self):
        return type("Stats", (), {"temp_size_in_bytes": self.size})


@pytest.fixture
def compiled(monkeypatch):
    """Compilations are recorded instead of done."""
    seen = []

    def fake(case, traced, group, unit, device):
        seen.append((group, unit, traced.batch))
        return Executable(group, traced.batch)

    monkeypatch.setattr(unit_size, "compiled", fake)
    return seen


@pytest.mark.parametrize(
    ("trial", "data", "found", "group"),
    [
        (weight_faults(convolved, KERNELS), IMAGES, (1, 0), 1),
        (feature_faults(convolved, KERNELS), IMAGES, (0, 0), 2),
        (weight_faults(multiplied, MATRICES), ROWS, (0, 1), 1),
        (feature_faults(multiplied, MATRICES), ROWS, (0, 0), 2),
    ],
    ids=["kernels", "images", "matrices", "rows"],
)
def test_own_weights_are_seen(compiled, trial, data, found, group):
    """The first layer's images are those of all trials, so it stays one convolution."""
    case = checked(trial, KEY, rates=[0.5], trials=4, data=data)
    traced = trace_evaluate(case, trace_draw(case), 6)
    assert own_weights.own_weights(case, traced) == found
    plan = sweep.make_plan(
        trial, KEY, rates=[0.5], trials=4, data=data, unit=2, batch=3, devices=1
    )
    assert (plan.group, plan.unit, plan.batch) == (group, 2, 3)
    assert ("one after another" in plan.reasons[0]) == (group == 1)


@pytest.mark.parametrize(("classes", "group"), [(3, 64), (3000, 22), (50_000, 1)])
def test_weights_that_only_meet_the_same_rows(compiled, classes, group):
    """One larger product, read once; on CPUs while the weights fit the caches."""
    centers = jnp.ones((classes, 4), jnp.int8)

    def evaluate(centers, batch):
        scores = batch.data.astype(jnp.int8) @ centers.T
        return jnp.sum(jnp.where(batch.valid, scores.argmax(-1) == 0, False))

    def draw(key, rate, design):
        return centers ^ jax.random.bits(key, centers.shape, jnp.uint8).view(jnp.int8)

    trial = Trial(draw, evaluate)
    plan = sweep.make_plan(
        trial, KEY, rates=[0.5], trials=64, data=ROWS, unit=64, batch=6, devices=1
    )
    assert plan.group == group
    assert ("only makes them larger" in plan.reasons[0]) == (group == 64)


def test_batches_leave_the_caches_of_a_cpu(compiled):
    """Features of 6 images of 128 bytes each: together while 0.5 MiB hold a layer."""
    trial = feature_faults(convolved, KERNELS)
    arguments = {"rates": [0.5], "trials": 9999, "data": IMAGES, "batch": 6}
    few, many = (
        sweep.make_plan(trial, KEY, unit=unit, **arguments) for unit in (600, 2000)
    )
    assert (few.group, many.group) == (600, 667)  # 0.5 MiB hold 682
    assert "Trials run 667 at a time" in many.reasons[0]
    assert "arrays of 1.5 MB" in many.reasons[0]
    assert many.explain().startswith("groups of 667 over units of 2,000 trials")


def plan_of(**changes):
    arguments = {"rates": [0.5], "trials": 64, "data": np.ones((512, 4), np.float32)}
    trial = feature_faults(multiplied, MATRICES)
    return sweep.make_plan(trial, KEY, **(arguments | changes))


@pytest.mark.parametrize(
    ("changes", "chosen", "compilations"),
    [
        # Trials at a time, trials of a unit, examples at a time.
        ({"budget_bytes": 10**9}, (8, 8, 512), 1),  # 8 x 512 = 4,096 evaluations
        ({"budget_bytes": 260_000}, (4, 8, 512), 3),  # 2,590 at a time, evened out
        ({"budget_bytes": 101_000}, (1, 8, 512), 3),
        ({"budget_bytes": 11_000}, (1, 8, 86), 3),
        ({"budget_bytes": 1_200, "unit": 2}, (1, 2, 2), 3),
        ({"budget_bytes": 61_200, "batch": 100}, (4, 8, 100), 3),
        ({"unit": 100, "batch": 7}, (100, 100, 7), 1),
        ({"trials": 5, "data": np.ones((1, 4), np.float32)}, (5, 5, 1), 1),
        ({"budget_bytes": 101_000, "over": "map"}, (1, 8, 512), 3),
        ({"budget_bytes": 11_000, "over": "map"}, (1, 8, 86), 3),
        ({"budget_bytes": 11_000, "over": 3}, (3, 8, 32), 3),
        ({"budget_bytes": 1_300, "over": "vmap"}, (3, 3, 1), 3),
        ({"budget_bytes": 10**9, "over": 100}, (8, 8, 512), 1),
        ({"over": "vmap", "unit": 100, "batch": 7}, (100, 100, 7), 0),
        ({"over": 3, "batch": 7}, (3, 8, 7), 0),
    ],
)
def test_sizes_fit_the_budget(compiled, changes, chosen, compilations):
    plan = plan_of(**changes)
    assert (plan.group, plan.unit, plan.batch) == chosen
    assert len(compiled) == compilations
    if compilations:
        assert compiled[-1] == chosen and " fit the budget" in plan.explain()
    fewer = "4 of 8 at a time, for their memory's sake" in plan.reasons[0]
    assert fewer == (chosen[:2] == (4, 8))


def test_a_wrong_guess_is_found_out(compiled, monkeypatch):
    """What is compiled counts, not what was extrapolated."""
    monkeypatch.setattr(memory, "written_bytes", lambda jaxpr: 0)
    plan = plan_of(budget_bytes=101_000)
    assert len(compiled) == 2 and plan.group * plan.batch <= 1000
    plan = plan_of(budget_bytes=900)
    assert (plan.group, plan.batch) == (1, 1) and "do NOT fit" in plan.explain()


def test_what_is_really_compiled_fits():
    """By the compiler's own count, for a net whose layers are not alike."""
    data = np.ones((512, 4, 4, 1), np.float32)
    case = checked(
        feature_faults(convolved, KERNELS), KEY, rates=[0.5], trials=8, data=data
    )
    budget = 100_000
    found = choose.prepare(
        case, over="map", unit=None, batch=None, devices=jax.local_devices()[:1],
        budget_bytes=budget,
    )  # fmt: skip
    size = found.executable.memory_analysis().temp_size_in_bytes
    assert budget / 4 < size <= budget and 1 < found.plan.batch < 512
    whole = trace_evaluate(case, trace_draw(case), 512)
    everything = unit.compiled(case, whole, 1, found.plan.unit, jax.local_devices()[0])
    assert everything.memory_analysis().temp_size_in_bytes > budget


def test_groups_that_are_really_compiled_fit():
    """Where all trials of a unit at a time do not."""
    data, budget = np.ones((16, 4, 4, 1), np.float32), 50_000
    case = checked(
        feature_faults(convolved, KERNELS), KEY, rates=[0.5], trials=50, data=data
    )
    found = choose.prepare(
        case, over=None, unit=50, batch=None, devices=jax.local_devices()[:1],
        budget_bytes=budget,
    )  # fmt: skip
    size = found.executable.memory_analysis().temp_size_in_bytes
    assert budget / 4 < size <= budget
    group = found.plan.group
    assert 1 < group < 50 and (found.plan.unit, found.plan.batch) == (50, 16)
    assert f"{group} of 50 at a time, for their memory's sake" in found.plan.reasons[0]
    together = unit.compiled(case, found.traced, 50, 50, jax.local_devices()[0])
    assert together.memory_analysis().temp_size_in_bytes > budget


def test_silent_compilers(compiled, monkeypatch):
    monkeypatch.setattr(Executable, "memory_analysis", lambda self: None)
    plan = plan_of(budget_bytes=20_000)
    assert plan.batch < 512 and "does not say how much" in plan.explain()

    def refuse(self):
        raise NotImplementedError

    monkeypatch.setattr(Executable, "memory_analysis", refuse)
    assert plan_of(budget_bytes=20_000).batch == plan.batch


def test_budgets_of_devices():
    class Device:
        def memory_stats(self):
            return {"bytes_limit": 4000}

    assert memory.device_budget(Device()) == (
        1000,
        "a quarter of the device's 0.004 MB",
    )


def test_a_plan_can_be_given_and_overruled():
    trial = Trial(lambda k, r, d: r, lambda r, b: jnp.where(b.valid, r, 0.0).sum())
    plan = Plan(group=3, unit=3, batch=2, reasons=("Because.",))
    arguments = {"rates": [0.5], "trials": 4, "data": np.ones(5)}
    result = sweep.run(trial, KEY, plan=plan, unit=2, **arguments)
    chosen = result.plan
    assert (chosen.group, chosen.unit, chosen.batch) == (2, 2, 2)
    assert chosen.reasons[0] == "Because." and (result.stats == 2.5).all()


@pytest.mark.parametrize(
    ("changes", "kind", "match"),
    [
        ({"over": "loop"}, ValueError, "'vmap' or 'map', or how many .* got 'loop'"),
        ({"over": True}, ValueError, "'vmap' or 'map', or how many .* got True"),
        ({"over": 0}, ValueError, "trials at a time must be at least 1, got 0"),
        ({"budget_bytes": 0}, ValueError, "budget_bytes must be at least 1"),
        ({"unit": "all"}, TypeError, "unit must be a whole number"),
    ],
)
def test_bad_wishes_are_named(changes, kind, match):
    with pytest.raises(kind, match=match):
        plan_of(**changes)


def test_a_group_is_part_of_a_unit():
    with pytest.raises(ValueError, match="at most the unit's 4 trials, got 5"):
        Plan(group=5, unit=4, batch=1)
    with pytest.raises(ValueError, match="group must be at least 1"):
        Plan(group=0, unit=4, batch=1)
