"""What a sweep gives, against a plain loop, and what it refuses."""

import itertools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import sweep_case
from support.sweep_case import (  # noqa: F401
    Counted,
    Enough,
    compiled_once,
    digest,
)

from jeff import sweep
from jeff.faults import bit_flip, on_weights
from jeff.sweep import Trial
from jeff.sweep.planning.devices import chosen_devices


@pytest.fixture(scope="module")
def base():
    return sweep_case.run()


def loop(design, rate, number):
    """One trial, by hand: no unit, no batches."""
    key = jax.random.fold_in(sweep_case.KEY, number)
    gain = {"gain": jnp.asarray(sweep_case.DESIGNS["gain"][design])}
    weights = sweep_case.draw(key, jnp.float32(rate), gain)
    return sweep_case.evaluate(
        weights, sweep.Batch(sweep_case.DATA, jnp.arange(10), jnp.ones(10, bool))
    )


def test_it_is_the_plain_loop(base):
    looped = jax.jit(loop, static_argnums=0)
    rates = sweep_case.ARGUMENTS["rates"]
    for d, (r, rate), t in itertools.product(range(2), enumerate(rates), (0, 5, 9)):
        want = looped(d, rate, t)
        assert base.stats["hits"][d, r, t] == want["hits"]
        np.testing.assert_allclose(base.stats["sum"][d, r, t], want["sum"], rtol=2e-5)
    assert base.stats["sum"].shape == (2, 3, 10)
    assert base.trials_done.tolist() == [[10] * 3] * 2
    assert base.rates.dtype == np.float32 and base.plan.group == 4
    # Without faults all trials are the same; with them, none.
    assert len(set(base.stats["sum"][0, 0].tolist())) == 1
    assert len(set(base.stats["sum"][0, 1].tolist())) == 10
    np.testing.assert_array_equal(base.rate_point(1, 2)["sum"], base.stats["sum"][1, 2])
    with pytest.raises(IndexError, match="2 designs and 3 rates"):
        base.rate_point(0, 3)


@pytest.mark.parametrize("chunk", [1, 3, 8, 10**6])
def test_chunks_change_no_bit(base, chunk):
    shown = Counted()
    assert digest(sweep_case.run(chunk=chunk, progress=shown)) == digest(base)
    assert shown.stages == [("sweep", 18)] and shown.steps == 18


@pytest.mark.parametrize("over", ["map", 3])
def test_another_unit_draws_the_same(base, over):
    """All at a time, one, or three, which do not divide a unit of ten."""
    other = sweep_case.run(unit=10, batch=10, plan=over)
    assert other.settings["group"] == (1 if over == "map" else over)
    np.testing.assert_array_equal(other.stats["hits"], base.stats["hits"])
    np.testing.assert_allclose(
        other.stats["sum"], base.stats["sum"], rtol=2e-5, atol=1e-5
    )


def test_a_unit_may_be_larger_than_the_trials(base):
    few = sweep_case.run(trials=3)
    np.testing.assert_array_equal(few.stats["sum"], base.stats["sum"][..., :3])
    assert few.trials_done.max() == 3


def test_a_hundred_designs_and_twenty_rates_compile_once():
    weights = np.random.default_rng(1).standard_normal((100, 4, 2), np.float32)
    x = np.ones((3, 4), np.float32)

    def linear(params, x):
        return x @ params["w"]

    trial = sweep.weight_faults(
        linear,
        {"w": weights[0]},
        lambda rate: on_weights(bit_flip(rate, method="sparse", max_rate=0.1)),
        params_of_design=lambda _, design: design,
        measure=sweep_case.logits_sum,
    )
    data = sweep.examples(linear, {"w": weights[0]}, x)
    key = jax.random.key(0)
    with sweep_case.compilations() as compiled:
        result = sweep.run(
            trial, key, rates=np.linspace(0, 0.1, 20), trials=2, data=data,
            designs={"w": weights},
        )  # fmt: skip
    assert compiled.count("jit(unit)") == 1
    assert len(compiled) < 10  # conversions of arguments, none once per point
    assert result.stats["sum"].shape == (100, 20, 2, 2)
    clean, most = result.stats["sum"][:, 0], result.stats["sum"][:, -1]
    want = 3 * weights.sum(1)[:, None].repeat(2, 1)
    np.testing.assert_allclose(clean, want, rtol=1e-5, atol=1e-5)
    assert (clean != most).any((1, 2)).all()


def test_a_rule_stops_points_one_by_one(base, tmp_path):
    stop, shown = Enough(1e-9), Counted()
    result = sweep_case.run(stop=stop, directory=tmp_path, progress=shown)
    assert result.trials_done.tolist() == [
        [4, 10, 10],
        [4, 10, 10],
    ]  # rate 0: no spread
    assert stop.asked == [(4, 1)] * 6 + [(8, 2)] * 4 + [(10, 3)] * 4
    assert [total for _, total in shown.stages] == [6, 4, 4]
    for d, r in itertools.product(range(2), range(3)):
        done = result.trials_done[d, r]
        want = base.stats["sum"][d, r, :done]
        np.testing.assert_array_equal(result.rate_point(d, r)["sum"], want)
        assert not result.stats["sum"][d, r, done:].any()
    again = sweep_case.run(stop=Enough(1e-9), directory=tmp_path, chunk=1)
    assert digest(again) == digest(result)
    assert sweep.read_sweep(tmp_path).trials_done.tolist() == again.trials_done.tolist()
    # No unit depends on the rule: another one, or none, goes on with what is there.
    early = sweep_case.run(stop=Enough(1e9), directory=tmp_path)
    assert (early.trials_done == 4).all()
    assert digest(sweep_case.run(directory=tmp_path)) == digest(base)


def bad(**changes):
    return {"data": np.ones(3), "rates": [0.5], "trials": 2} | changes


@pytest.mark.parametrize(
    ("changes", "kind", "match"),
    [
        ({"rates": [0.5, -1]}, ValueError, r"rates\[1\] must be finite .* got -1.0"),
        ({"rates": [float("nan")]}, ValueError, r"rates\[0\] .* got nan"),
        ({"rates": [1e39]}, ValueError, r"rates\[0\]=1e\+39 is inf as float32"),
        ({"rates": []}, ValueError, "at least one rate"),
        ({"rates": 0.5}, ValueError, r"must be \[n\], not of shape \(\)"),
        ({"rates": "high"}, TypeError, "got 'high'"),
        ({"trials": 0}, ValueError, "trials must be at least 1, got 0"),
        ({"trials": 1.5}, TypeError, "trials must be a whole number, got 1.5"),
        ({"unit": 0}, ValueError, "unit must be at least 1"),
        ({"batch": -1}, ValueError, "batch must be at least 1"),
        ({"chunk": 0}, ValueError, "chunk must be at least 1"),
        ({"plan": "pmap"}, ValueError, "'vmap' or 'map', .* got 'pmap'"),
        ({"devices": 99}, ValueError, "devices=99, but this process has"),
        ({"devices": ["cpu"]}, TypeError, "JAX devices, got 'cpu'"),
        ({"devices": []}, ValueError, "at least one device"),
        ({"data": {}}, ValueError, "data holds no array"),
        ({"data": {"x": [1.0]}}, TypeError, "data.x.0 must be an array, got float"),
        ({"data": np.ones((0, 3))}, ValueError, "data holds no examples"),
        (
            {"data": {"x": np.ones((3, 2)), "y": np.ones(4)}},
            ValueError,
            "data.x has 3 examples, but data.y has 4",
        ),
        (
            {"designs": [np.ones(3), np.ones(2)]},
            ValueError,
            "designs.0 has 3 designs, but designs.1 has 2",
        ),
        ({"designs": np.float32(1)}, ValueError, "designs must have a leading axis"),
    ],
)
def test_bad_arguments_are_named(changes, kind, match):
    trial = Trial(lambda *a: pytest.fail("traced"), lambda *a: None)
    with pytest.raises(kind, match=match):
        sweep.run(trial, jax.random.key(0), **bad(**changes))


@pytest.mark.parametrize("key", [0, jnp.zeros(2, jnp.uint32), "key"])
def test_a_key_must_be_one(key):
    with pytest.raises(TypeError, match=r"one key as jax.random.key gives it"):
        sweep.run(sweep_case.TRIAL, key, **bad())
    with pytest.raises(TypeError, match="got key<fry>\\[2\\]"):
        sweep.run(sweep_case.TRIAL, jax.random.split(jax.random.key(0)), **bad())


@pytest.mark.parametrize(
    ("evaluate", "kind", "match"),
    [
        (lambda f, b: {"a": b.valid.any()}, TypeError, "'a' must be of a number dtype"),
        (lambda f, b: (), TypeError, "at least one array"),
        (lambda f, b: f, TypeError, "key<fry>"),
        (
            lambda f, b: {"errors": b.data},
            ValueError,
            r"'errors' has shape \(3,\) for 3 examples and \(4,\) for 4",
        ),
    ],
)
def test_statistics_must_sum(evaluate, kind, match):
    trial = Trial(lambda key, rate, design: key, evaluate)
    with pytest.raises(kind, match=match):
        sweep.run(trial, jax.random.key(0), **bad())


def test_a_shape_may_equal_the_batch_by_chance():
    trial = Trial(lambda k, r, d: r, lambda r, b: r * jnp.ones(3) * len(b.valid))
    result = sweep.run(trial, jax.random.key(0), **bad(plan="map", unit=2, batch=3))
    assert result.stats.shape == (1, 1, 2, 3) and (result.stats == 1.5).all()


def test_devices_are_of_one_kind(monkeypatch):
    """What they round differently would depend on who computes which unit."""
    two = [types.SimpleNamespace(platform="gpu", device_kind=k) for k in ("H200", "A1")]
    monkeypatch.setattr(jax, "local_devices", lambda: two)
    with pytest.raises(ValueError, match="one kind, they are of 'gpu A1', 'gpu H200'"):
        sweep.run(sweep_case.TRIAL, sweep_case.KEY, **bad())
    assert chosen_devices(1) == (two[0],)
