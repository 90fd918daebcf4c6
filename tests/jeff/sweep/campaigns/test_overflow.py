"""Faults that did not fit their buffer: told by image, through loops and cuts."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import fault_nets

from jeff import base, rewrite
from jeff.faults import bit_flip, on_features
from jeff.prng import named_key
from jeff.sweep import (
    Batch,
    check_overflow,
    feature_faults,
    prefix,
    run,
    weight_and_feature_faults,
)
from jeff.sweep.campaigns.overflow import with_overflow

KEY = jax.random.key(3)


class Lost(NamedTuple):
    """Faults that are missing."""

    overflow: jax.Array


def losing(rate):
    """A model that does nothing and overflows with a probability."""
    return base.FaultModel(
        lambda key, like: Lost(jax.random.bernoulli(key, rate)), lambda faults, y: y
    )


def broken(rate):
    """A model that makes NaN of every output, with no fault missing."""
    return base.FaultModel(
        lambda key, like: jnp.float32(jnp.nan), lambda nan, y: y * nan
    )


def whole(data):
    count = len(data.labels)
    return Batch(data, jnp.arange(count), jnp.ones(count, bool))


def evaluated(trials, data, rate):
    @jax.jit
    def run_all(key, rate):
        return [t.evaluate(t.draw(key, rate, None), whole(data)) for t in trials]

    return run_all(KEY, jnp.float32(rate))


def test_nan_of_faults_and_of_missing_faults_are_told_apart():
    net = fault_nets.mlp()
    plain = net.apply, net.params
    lost, made, sampler, both = evaluated(
        [
            feature_faults(*plain, losing, where="up"),
            feature_faults(*plain, broken),
            feature_faults(*plain, lambda r: bit_flip(r, max_rate=0.1), where="down"),
            weight_and_feature_faults(
                *plain, lambda r: base.FaultModel(lambda k, p: None, lambda f, p: p),
                losing, where="up",
            ),
        ],
        net.data, 0.4,
    )  # fmt: skip
    key = named_key(KEY, "features")
    keys = [jax.random.fold_in(named_key(key, "up", 0), i) for i in range(10)]
    expected = sum(int(jax.random.bernoulli(k, jnp.float32(0.4))) for k in keys)
    assert 0 < expected < 10
    assert lost.overflow == both.overflow == lost.nonfinite == expected
    assert made.nonfinite == 10 and made.overflow == 0
    assert sampler.overflow == 10  # asked for more than max_rate
    with pytest.raises(ValueError, match="1 of 1 trials drew more faults"):
        check_overflow(lost)
    check_overflow(made)


def test_a_sweep_counts_them_whatever_the_batch():
    net = fault_nets.linear()
    trial = feature_faults(net.apply, net.params, losing)
    how = {"rates": [0.0, 0.3], "trials": 4, "data": net.data, "devices": 1}
    one = run(trial, KEY, unit=4, batch=4, plan="map", **how).stats
    other = run(trial, KEY, unit=2, batch=10, plan="vmap", **how).stats
    np.testing.assert_array_equal(one.overflow, other.overflow)
    assert not one.overflow[0, 0].any() and 0 < one.overflow[0, 1].sum() < 40
    np.testing.assert_array_equal(one.overflow, one.nonfinite)


LAYERS = np.random.default_rng(0).standard_normal((3, 4, 4)).astype(np.float32)


def scanned(p, x):
    return jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, p["layers"])[0]


def written_out(p, x):
    for w in p["layers"]:
        x = jnp.tanh(x @ w)
    return x


def looped(p, x):  # the same weight three times, then a branch
    x = jax.lax.fori_loop(0, 3, lambda i, h: jnp.tanh(h @ p["layers"]), x)
    return jax.lax.cond(x.sum() < 1e9, lambda h: h @ p["head"], lambda h: h, x)


def test_loops_and_branches_hand_flags_out():
    x = jnp.ones((6, 4))

    @jax.jit
    def flags(key):
        rule = on_features(losing(0.2), key, examples=jnp.arange(6))
        whole = on_features(losing(0.2), key)  # one draw for the whole output
        one = {"layers": LAYERS[0], "head": LAYERS[1]}
        return (
            with_overflow(scanned, rule)({"layers": LAYERS}, x),
            with_overflow(written_out, rule)({"layers": list(LAYERS)}, x),
            with_overflow(looped, rule)(one, x),
            with_overflow(looped, whole)(one, x),
        )

    scan, plain, loop, single = flags(KEY)
    np.testing.assert_array_equal(scan[1], plain[1])
    for y, missing in (scan, plain, loop):
        assert 0 < missing.sum() < 6
        np.testing.assert_array_equal(np.isnan(y).all(-1), missing)
    assert single[1].shape == () and bool(single[1]) == bool(np.isnan(single[0]).all())


def test_the_end_of_a_program_says_the_same():
    net = fault_nets.mlp()
    late = prefix(net.apply, net.params, "down", net.data, batch=10)
    (full,) = evaluated(
        [feature_faults(net.apply, net.params, losing, where="down")], net.data, 0.5
    )
    part, hard = evaluated(
        [
            feature_faults(late.apply, late.params, losing),
            feature_faults(late.apply, late.params, losing, permanent=True),
        ],
        late.data, 0.5,
    )  # fmt: skip
    assert full.overflow == part.overflow and 0 < part.overflow < 10
    assert hard.overflow in (0, 10)
    with pytest.raises(TypeError, match="no keyword inputs: train"):
        late.apply.run(None, late.params, late.data.inputs, {"train": True})


class TestCost:
    """With all of XLA's passes, which find that the draws are the same."""

    @pytest.fixture(autouse=True)
    def all_passes(self):
        before = jax.config.values["jax_disable_most_optimizations"]
        jax.config.update("jax_disable_most_optimizations", False)
        yield
        jax.config.update("jax_disable_most_optimizations", before)

    def test_flags_draw_nothing_twice_and_change_no_bit(self):
        net = fault_nets.mlp()

        def program(flagged):
            def run(key, rate, params, x):
                model = bit_flip(rate, max_rate=0.05, method="sparse")
                rule = on_features(model, key, examples=jnp.arange(10))
                if not flagged:
                    return rewrite(net.apply, rule)(params, x)
                return with_overflow(net.apply, rule)(params, x)

            rate = jnp.float32(0.05)
            return jax.jit(run).lower(KEY, rate, net.params, net.data.inputs).compile()

        plain, flagged = program(False), program(True)
        # A second draw would double the generator's loops.
        loops = [p.as_text().count(" while(") for p in (plain, flagged)]
        assert loops[0] == loops[1]
        flops = [p.cost_analysis()["flops"] for p in (plain, flagged)]
        assert flops[1] < 1.1 * flops[0]
        for rate in (0.0, 0.05):
            arguments = KEY, jnp.float32(rate), net.params, net.data.inputs
            y, (same, missing) = plain(*arguments), flagged(*arguments)
            np.testing.assert_array_equal(y, same)
            assert not missing.any() and missing.shape == (10,)
