"""Campaigns against the program run with the same faults by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import fault_nets

from jeff import base, rewrite, tree
from jeff.faults import bit_flip, on_features, on_weights
from jeff.prng import named_key
from jeff.quantize import QuantConfig, quantize
from jeff.sweep import (
    Batch,
    feature_faults,
    outcome,
    prefix,
    run,
    weight_and_feature_faults,
    weight_faults,
)

KEY = jax.random.key(7)
RATE = 0.1


def flips(rate):
    """Elements times -4 (a model that compiles faster than those of `jeff.faults`)."""
    return base.FaultModel(
        lambda key, like: jax.random.bernoulli(key, rate, like.shape),
        lambda hit, x: jnp.where(hit, -4 * x, x),
    )


def weights(rate):
    return on_weights(flips(rate))


def whole(data):
    count = len(data.labels)
    return Batch(data, jnp.arange(count), jnp.ones(count, bool))


@jax.jit
def by_hand(key):
    """Outcomes of trial 0 of weights, features, and both, without a campaign."""
    net = fault_nets.linear()
    data, trial = net.data, jax.random.fold_in(key, 0)
    model = weights(RATE)
    key_weights, key_features = (named_key(trial, n) for n in ("weights", "features"))
    params = model.inject(model.sample(key_weights, net.params), net.params)
    rule = on_features(flips(RATE), key_features, examples=jnp.arange(10))
    programs = (
        (net.apply, params),
        (rewrite(net.apply, rule), net.params),
        (rewrite(net.apply, rule), params),
    )
    return [
        outcome(apply(p, data.inputs), data.golden, data.labels)
        for apply, p in programs
    ]


def same(stats, expected):
    for name, value in stats._asdict().items():
        np.testing.assert_allclose(
            np.ravel(value)[0], getattr(expected, name), atol=1e-4, err_msg=name
        )


def campaigns(apply, params):
    return (
        weight_faults(apply, params, weights),
        feature_faults(apply, params, flips),
        weight_and_feature_faults(apply, params, weights, flips),
    )


def evaluated(trials, data, design=None):
    """Trial 0 of several campaigns, in one compiled program."""

    @jax.jit
    def run_all(key, rate, design, data):
        return [t.evaluate(t.draw(key, rate, design), whole(data)) for t in trials]

    return run_all(jax.random.fold_in(KEY, 0), jnp.float32(RATE), design, data)


def test_trials_are_what_one_would_write():
    net = fault_nets.linear()
    got = evaluated(campaigns(net.apply, net.params)[:2], net.data)
    for stats, expected in zip(got, by_hand(KEY)[:2], strict=True):
        assert expected.changed > 0 and expected.images == 10
        same(stats, expected)


def test_a_sweep_gives_them_whatever_the_batch():
    net = fault_nets.linear()
    stats = run(
        campaigns(net.apply, net.params)[2], KEY,
        rates=[0.0, RATE], trials=2, data=net.data, unit=2, batch=4, plan="map",
    ).stats  # fmt: skip
    assert (stats.images == 10).all() and not stats.overflow.any()
    assert not stats.changed[0, 0].any()  # rate 0
    same(jax.tree.map(lambda a: a[0, 1], stats), by_hand(KEY)[2])


def test_prefix_reuse_gives_the_same_outcomes():
    net = fault_nets.mlp()
    late = prefix(net.apply, net.params, "down", net.data, batch=10)
    full = feature_faults(net.apply, net.params, flips, where="down")
    part = feature_faults(late.apply, late.params, flips)
    (expected,) = evaluated([full], net.data)
    (stats,) = evaluated([part], late.data)
    assert expected.changed > 0
    same(stats, expected)


def test_permanent_faults_are_the_same_for_all_examples():
    net = fault_nets.linear()
    data = net.data._replace(inputs=net.data.inputs[:1].repeat(10, 0))
    soft, hard = evaluated(
        [
            feature_faults(
                net.apply, net.params, flips,
                permanent=permanent, measure=lambda y, *rest, **o: y,
            )
            for permanent in (False, True)
        ],
        data,
    )  # fmt: skip
    assert (hard == hard[0]).all() and not (soft == soft[0]).all()


def test_designs_are_params_or_make_them():
    net = fault_nets.linear()
    stacked = jax.tree.map(lambda a: np.stack([a, 0 * a]), net.params)
    trial = weight_faults(
        net.apply, None, weights, params_of_design=lambda _, design: design
    )
    stats = run(
        trial, KEY, rates=[0.0], trials=1, data=net.data, designs=stacked,
        unit=1, batch=10, plan="map",
    ).stats  # fmt: skip
    # All-zero weights answer 0 always.
    changed = np.count_nonzero(net.data.golden.argmax(-1))
    np.testing.assert_array_equal(stats.changed[:, 0, 0], [0, changed])
    scaled = feature_faults(
        net.apply, net.params, lambda rate: lambda site: None,
        params_of_design=lambda p, scale: jax.tree.map(lambda a: a * scale, p),
    )  # fmt: skip
    (stats,) = evaluated([scaled], net.data, np.float32(0))
    assert stats.changed == changed


def test_stored_weights_are_hit_in_their_codes():
    w = quantize(jnp.eye(8), QuantConfig(bits=4, group_size=8))
    seen = []

    def measure(logits, golden, labels, valid, *, overflow):
        return outcome(logits, golden, labels, valid, overflow=overflow)

    def sample(key, params):
        codes = tree.get(params, "w").codes()
        seen.append(codes.shape)
        return jnp.ones(codes.shape, codes.dtype)

    def inject(faults, params):
        return {"w": params["w"].with_codes(params["w"].codes() ^ faults)}

    x = np.eye(8, dtype=np.float32)
    golden = np.asarray(w.decode())
    data = fault_nets.Examples(x, np.arange(8, dtype=np.int32), golden)
    trial = weight_faults(
        lambda p, x: x @ p["w"], {"w": w},
        lambda rate: base.FaultModel(sample, inject), measure=measure,
    )  # fmt: skip
    (stats,) = evaluated([trial], data)
    assert seen and stats.images == 8 and stats.overflow == 0
    assert stats.confidence_drop != 0


def test_missing_faults_are_reported():
    net = fault_nets.linear()

    class Faults(tuple):
        overflow = jnp.array(True)

    model = base.FaultModel(lambda key, p: Faults(), lambda faults, p: p)
    trial = weight_faults(net.apply, net.params, lambda rate: model)
    (stats,) = evaluated([trial], net.data)
    assert stats.overflow == 10 and stats.changed == 0


def test_errors():
    net = fault_nets.mlp()
    with pytest.raises(TypeError, match="made of functions, got 0.1"):
        weight_faults(net.apply, net.params, 0.1)
    plain = weight_faults(net.apply, net.params, weights)
    with pytest.raises(ValueError, match="Give params_of_design"):
        plain.draw(KEY, 0.0, net.params)
    designed = feature_faults(
        net.apply, net.params, flips, params_of_design=lambda p, d: p
    )
    with pytest.raises(ValueError, match="the sweep has no designs"):
        designed.evaluate(designed.draw(KEY, 0.0, None), whole(net.data))


def test_rates_and_sites_are_checked_before_anything_is_traced():
    net, late = fault_nets.linear(), fault_nets.mlp()
    cut = prefix(late.apply, late.params, "down", late.data, batch=10)

    def model(rate):
        return bit_flip(rate, max_rate=0.5)

    def on_all(rate):
        return on_weights(model(rate))

    plain = net.apply, net.params
    known = [0.0, 0.5]
    for trial, rates, data, message in (
        (weight_faults(*plain, on_all), [0.5, 1e-12], net.data,
         r"rates\[1\]=1e-12: leaf 'w': rate 1e-12 cannot be reached by method 'dense'"),
        (weight_faults(*plain, on_all), [0.6], net.data,
         r"rates\[0\]=0.6: leaf 'w': rate must be at most max_rate=0.5"),
        (feature_faults(*plain, model), [0.6], net.data,
         r"rates\[0\]=0.6: site 'w': rate must be at most max_rate=0.5"),
        (weight_and_feature_faults(*plain, on_all, model), [0.6], net.data,
         r"rates\[0\]=0.6: leaf 'w': rate must be"),
        (feature_faults(*plain, model, where="wrong"), known, net.data,
         "where='wrong' chooses no site"),
        (feature_faults(*plain, model, where=["w1"]), known, net.data,
         "where names 'w1', which is no site"),
        (feature_faults(cut.apply, cut.params, model, where="up"), known, cut.data,
         "where='up' chooses no site"),
        (weight_faults(*plain, on_all), [1e-50], net.data, r"rates\[0\]=1e-50 is 0 as"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            run(trial, KEY, rates=rates, trials=1, data=data)
    feature_faults(cut.apply, cut.params, model, where="down").check(
        known, cut.data, None
    )
