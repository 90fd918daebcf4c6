"""Faults of named values: scores, sums, and the output of a batch norm."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jeff
from jeff import dm_bnn, mbq, sweep
from jeff.faults import (
    bit_flip,
    conv_macs,
    gaussian,
    mac_fault_rate,
    mibb,
    mibb_at_sites,
    on_features,
    site_macs,
    stuck_at,
)
from jeff.quantize import QuantConfig
from jeff.sweep.campaigns.overflow import with_overflow

RNG = np.random.default_rng(0)


def normal(*shape):
    return jnp.asarray(RNG.standard_normal(shape, np.float32))


PARAMS = {"up": normal(8, 6), "shift": normal(6), "down": normal(6, 4)}
X = normal(5, 8)
ZERO = stuck_at(1.0, one_share=0.0)


def net(p, x, macs=None):
    """A layer, a shift that no site makes, a mark behind it, and a second layer."""
    return (
        jeff.mark("shifted", jnp.tanh(x @ p["up"] + p["shift"]), macs=macs) @ p["down"]
    )


def test_marks_are_hit_where_they_are_chosen_and_nowhere_else(key):
    clean = jax.jit(net)(PARAMS, X)
    unhit = jax.jit(jeff.rewrite(net, on_features(ZERO, key, where="up|down")))
    np.testing.assert_array_equal(unhit(PARAMS, X), np.zeros((5, 4)))
    rules = [
        on_features(model, key, where=where)
        for where in ("shifted", ["shifted"], lambda name, site: site.kind == "mark")
        for model in (ZERO, gaussian(0.1))
    ]
    outs = jax.jit(lambda p, x: [jeff.rewrite(net, r)(p, x) for r in rules])(PARAMS, X)
    for zeroed, noisy in zip(outs[::2], outs[1::2], strict=True):
        np.testing.assert_array_equal(zeroed, np.zeros((5, 4)))
        assert (noisy != clean).all()
    # By itself a rule hits what computes: it never sees the mark.
    seen = []

    def model(site):
        seen.append(site.name)

    jax.jit(jeff.rewrite(net, on_features(model, key)))(PARAMS, X)
    assert seen == ["up", "down"]


def test_a_mark_that_is_named_must_exist(key):
    rule = on_features(ZERO, key, where=["shift"])
    with pytest.raises(ValueError, match="no site; nearest: shifted"):
        jeff.rewrite(net, rule)(PARAMS, X)
    on_features(ZERO, key, ["shifted"], sites=jeff.sites(net, PARAMS, X))


def test_what_a_mark_gets_is_what_the_model_gives_with_its_key(key):
    rule = on_features(mibb_at_sites(0.01), key, where="shifted")
    told = functools.partial(net, macs=36)
    site = jeff.sites(told, PARAMS, X).named("shifted")

    @jax.jit
    def both(p, x):
        value = jnp.tanh(x @ p["up"] + p["shift"])
        model = mibb(0.01, macs=36)
        faulty = model.inject(model.sample(site.key(key), value), value)
        return jeff.rewrite(told, rule)(p, x), faulty @ p["down"]

    faulty, by_hand = both(PARAMS, X)
    np.testing.assert_allclose(faulty, by_hand, rtol=1e-5, atol=1e-6)


def test_mibb_takes_the_macs_a_mark_was_told_and_no_others(key):
    where = lambda name, site: site.kind == "mark"  # noqa: E731
    with pytest.raises(ValueError, match=r"write jeff.mark\('shifted', y, macs=...\)"):
        jeff.rewrite(net, on_features(mibb_at_sites(0.1), key, where))(PARAMS, X)
    site = jeff.sites(functools.partial(net, macs=576), PARAMS, X).named("shifted")
    assert site_macs(site) == (576, 1)
    with pytest.raises(ValueError, match="neither channels nor window"):
        site_macs(site, tree_width=16)

    def wide(p, x):
        return jeff.mark("sum", x + p, macs=576)

    rule = on_features(mibb_at_sites(1e-4, max_value_mode=True), key, where)
    y = jax.jit(jeff.rewrite(wide, rule))(jnp.zeros(20_000), jnp.zeros(20_000))
    rate, p = float((y != 0).mean()), float(mac_fault_rate(1e-4, 576))
    assert abs(rate - p) < 4 * math.sqrt(p * (1 - p) / 20_000)


def test_the_papers_point_is_behind_the_batch_norm(key):
    """The same faults as those of a folded network, in every tile of its maps."""
    kernel, gain, shift = normal(3, 3, 2, 4), jnp.abs(normal(4)), normal(4)
    image, tile = normal(2, 6, 6, 2), (3, 2, 4)  # NHWC: height, width, channels
    macs = conv_macs((3, 3), 2).macs

    def conv(x, w):
        return jax.lax.conv_general_dilated(
            x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def normed(p, x):
        return jeff.mark("conv", gain * conv(x, p) + shift, macs=macs)

    def folded(p, x):
        return jeff.mark("conv", conv(x, p * gain) + shift, macs=macs)

    rule = on_features(mibb_at_sites(0.01, tile=tile), key, where="conv")

    @jax.jit
    def run(p, x):
        outs = [jeff.rewrite(f, rule)(p, x) for f in (normed, folded)]
        return *outs, jeff.rewrite(normed, on_features(mibb(0.0), key, "conv"))(p, x)

    faulty, same, clean = (np.asarray(a) for a in run(kernel, image))
    np.testing.assert_allclose(faulty, same, atol=0.1)  # a step, where codes round
    hit = np.abs(faulty - clean) > 1e-6
    assert 0 < hit.sum() < hit.size
    turned = np.roll(hit, (3, 2), (1, 2))  # maps of 6x6 in tiles of 3x2
    assert (hit == turned).mean() > 0.99


def test_examples_of_a_mapped_program_draw_for_themselves(key):
    def one(p, x):
        return net(p, x)

    def mapped(p, x):
        return jax.vmap(lambda row: one(p, row))(x)

    numbers = jnp.array([7, 3, 12, 5, 1], jnp.int32)

    @jax.jit
    def run(x, numbers):
        rule = on_features(gaussian(0.3), key, where="shifted", examples=numbers)
        return jeff.rewrite(mapped, rule)(PARAMS, x)

    whole, turned = run(X, numbers), run(X[::-1], numbers[::-1])
    np.testing.assert_allclose(turned[::-1], whole, atol=1e-5)
    alike = run(jnp.broadcast_to(X[0], X.shape), numbers)
    assert len(np.unique(np.asarray(alike), axis=0)) == len(X)  # each its own noise


def test_overflows_at_marks_are_counted():
    @jax.jit
    def run(rate):
        rule = on_features(
            bit_flip(rate, max_rate=0.1), jax.random.key(0), where="shifted",
            examples=jnp.arange(5),
        )  # fmt: skip
        return with_overflow(net, rule)(PARAMS, X)[1]

    assert not run(0.1).any() and run(0.5).all()


def test_campaigns_hit_marks_of_programs_and_of_suffixes(key):
    def late(p, x):
        return jeff.mark("late", net(p, x))

    data = sweep.examples(late, PARAMS, np.asarray(X))
    trial = sweep.feature_faults(late, PARAMS, lambda _: ZERO, where="shifted")
    trial.check([0.5], data, None)
    batch = sweep.Batch(data, jnp.arange(5), jnp.ones(5, bool))
    stats = jax.jit(trial.evaluate)(trial.draw(key, 0.5, None), batch)
    assert int(stats.images) == 5 and int(stats.changed) > 0
    for point, inside in ((jeff.before("down"), True), (jeff.after("down"), False)):
        end = sweep.prefix(late, PARAMS, point, data)
        own = sweep.feature_faults(end.apply, end.params, lambda _: ZERO, where="late")
        own.check([0.5], end.data, None)
        early = sweep.feature_faults(
            end.apply, end.params, lambda _: ZERO, where="shifted"
        )
        if inside:
            early.check([0.5], end.data, None)
        else:
            with pytest.raises(ValueError, match="chooses no site"):
                early.check([0.5], end.data, None)


def test_a_program_is_quantized_as_if_it_had_no_marks():
    """MBQ: the same groups, folded scales and codes."""

    def plain(p, x):
        return jax.nn.relu((x * p["norm"]) @ p["up"]) @ p["down"]

    def marked(p, x):
        hidden = jeff.mark("hidden", jeff.mark("normed", x * p["norm"]) @ p["up"])
        return jeff.mark("out", jeff.mark("relu", jax.nn.relu(hidden)) @ p["down"])

    params = {
        "norm": jnp.ones(8).at[3].set(8.0),
        "up": normal(8, 8),
        "down": normal(8, 8),
    }
    vision = jnp.arange(6)[None] < 4
    batch = mbq.Batch((normal(1, 6, 8),), {"vision": vision, "language": ~vision})
    config = mbq.BalanceConfig(weights=QuantConfig(bits=3, group_size=8))

    def loss(y, _):
        return (y**2).mean()

    a, b = (mbq.mbq(f, params, [batch], config, loss=loss) for f in (plain, marked))
    jax.tree.map(np.testing.assert_array_equal, a.params, b.params)
    assert str(a.report) == str(b.report) and "norm" in str(b.report)


@pytest.mark.parametrize("mode", ["dm", "lrt"])
def test_voters_of_a_program_are_those_without_marks(mode, key):
    """Bayesian networks: the same levels, the same draws."""

    def plain(p, x):
        return jnp.tanh(x @ p["up"]) @ p["down"]

    def marked(p, x):
        return jeff.mark("out", jeff.mark("hidden", jnp.tanh(x @ p["up"])) @ p["down"])

    random = dm_bnn.posterior({n: PARAMS[n] for n in ("up", "down")}, 0.1)
    voters = functools.partial(dm_bnn.predict, voters=(2, 3), mode=mode)
    expected, got = jax.jit(
        lambda p, x: [voters(f, p, x, key) for f in (plain, marked)]
    )(random, X)
    assert got.shape == (6, 5, 4)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
