"""Block by block: what must not change the choices, and what is reported."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import mbq_blocks

import jeff
from jeff import mbq, quantize
from jeff.quantize import QuantConfig

CONFIG = mbq.BalanceConfig(weights=QuantConfig(bits=3, group_size=16))
PLAIN = dataclasses.replace(CONFIG, reweight="none")


def call(method="mbq", *, scanned=False, config=CONFIG, batches=None, **options):
    params = mbq_blocks.make_params()
    return getattr(mbq, method)(
        mbq_blocks.scanned if scanned else mbq_blocks.gated(),
        mbq_blocks.stack(params) if scanned else params,
        mbq_blocks.batches(2) if batches is None else batches,
        config,
        loss=mbq_blocks.loss,
        **options,
    )


def exponents(result):
    return [(g.block, g.exponent) for g in result.report.groups]


def together(batches):
    """Several batches as one."""
    return [jax.tree.map(lambda *xs: jnp.concatenate(xs), *batches)]


@pytest.mark.parametrize("loss", ["mae", "mse"])
def test_several_batches_choose_as_one(loss):
    config = dataclasses.replace(CONFIG, loss=loss)
    batches = mbq_blocks.batches(3)
    streamed = call(config=config, batches=batches)
    whole = call(config=config, batches=together(batches))
    assert exponents(streamed) == exponents(whole)
    assert len({e for _, e in exponents(whole)}) > 1
    for one, other in zip(streamed.report.groups, whole.report.groups, strict=True):
        np.testing.assert_allclose(one.losses, other.losses, rtol=1e-4)
        np.testing.assert_allclose(one.scale, other.scale, rtol=1e-5)
        np.testing.assert_allclose(
            one.ratios["vision"], other.ratios["vision"], rtol=1e-4
        )


@pytest.mark.parametrize("method", ["mbq", "smoothquant"])
def test_scanned_layers_choose_as_unrolled_ones(method):
    unrolled, scanned = call(method), call(method, scanned=True)
    for one, other in zip(unrolled.report.groups, scanned.report.groups, strict=True):
        np.testing.assert_equal(one.exponent, other.exponent)
        np.testing.assert_allclose(one.scale, other.scale, rtol=1e-5)
        assert (one.block, bool(one.fold)) == (other.block, bool(other.fold))
    for name in ("gate", "up", "down"):
        stacked = scanned.params["layers"][name].decode()
        for i, layer in enumerate(unrolled.params["layers"]):
            got = np.isclose(stacked[i], layer[name].decode(), rtol=1e-4, atol=1e-5)
            assert got.mean() > 0.99  # a last bit of a scale may flip a code


def test_a_scan_from_the_last_layer_to_the_first():
    def backwards(params, x):
        step = lambda x, p: (mbq_blocks.block(p, x), None)  # noqa: E731
        x, _ = jax.lax.scan(step, x, params["layers"], reverse=True)
        return x @ params["head"]

    params = mbq_blocks.make_params()
    flipped = {**params, "layers": params["layers"][::-1]}
    result = mbq.mbq(
        backwards,
        mbq_blocks.stack(flipped),
        mbq_blocks.batches(),
        CONFIG,
        loss=mbq_blocks.loss,
    )
    want = call(batches=mbq_blocks.batches())
    assert exponents(result) == exponents(want)
    for one, other in zip(result.report.groups, want.report.groups, strict=True):
        np.testing.assert_allclose(
            one.ratios["vision"], other.ratios["vision"], rtol=1e-4
        )
    for i in range(mbq_blocks.LAYERS):
        norm = result.params["layers"]["norm"][mbq_blocks.LAYERS - 1 - i]
        np.testing.assert_allclose(norm, want.params["layers"][i]["norm"], rtol=1e-5)


def test_never_worse_than_rounding_on_its_own_loss():
    """The exponent 0 is a candidate, the scale 1."""
    for group in call().report.groups:
        assert group.losses.shape == (20,)
        index = round(group.exponent * 20)
        assert group.losses[index] == group.losses.min() <= group.losses[0]
        np.testing.assert_allclose(group.scale.max() * group.scale.min(), 1, rtol=1e-5)


def test_folding_leaves_the_program_as_it_was():
    """At 8 bits with float zero points little is lost; the scales really balance."""
    config = dataclasses.replace(
        PLAIN, weights=QuantConfig(bits=8, group_size=16, zero_point="float")
    )
    result = call(config=config)
    (x,) = mbq_blocks.batches()[0].inputs
    want = mbq_blocks.gated()(mbq_blocks.make_params(), x)
    got = jeff.rewrite(mbq_blocks.gated())(result.params, x)
    assert np.abs(got - want).max() < 0.02 * np.abs(want).max()
    assert max(g.exponent for g in result.report.groups) > 0
    assert all(g.change < 1e-6 and g.fold for g in result.report.groups)
    dense = mbq_blocks.make_params()["layers"][0]["norm"]
    assert not np.allclose(result.params["layers"][0]["norm"], dense)


def test_balance_changes_what_is_chosen():
    """The loss weighs answers more, so MBQ and AWQ do not agree everywhere."""
    balanced, answer = (
        call(),
        call(config=dataclasses.replace(CONFIG, reweight="answer")),
    )
    losses = [[g.losses for g in r.report.groups] for r in (balanced, answer)]
    assert not np.allclose(losses[0], losses[1], rtol=1e-3)
    for group in balanced.report.groups:
        assert 0 < group.ratios["vision"] < 1 and group.ratios["language"] == 1
    assert balanced.report.sensitivities["layers.0.down"]["vision"].shape == (3,)
    assert answer.report.sensitivities == {}
    assert all(g.ratios == {} for g in answer.report.groups)


def test_awq_is_the_plain_squared_error():
    plain = call(config=dataclasses.replace(PLAIN, loss="mse"))
    awq = call("awq")
    assert exponents(awq) == exponents(plain)
    for one, other in zip(awq.report.groups, plain.report.groups, strict=True):
        np.testing.assert_array_equal(one.losses, other.losses)


def test_groups_by_hand_are_the_only_ones():
    down = mbq.GroupSpec(sites=("layers.0.down",))
    result = call(groups=[down])
    assert {g.sites for g in result.report.groups} == {
        (f"layers.{i}.down",) for i in range(3)
    }
    none = call(config=PLAIN, groups=[])
    rounded = call("rtn")
    for one, other in zip(none.params["layers"], rounded.params["layers"], strict=True):
        for name in ("gate", "up", "down"):
            np.testing.assert_array_equal(one[name].decode(), other[name].decode())
    assert none.report.groups == ()


def test_nothing_is_folded_into_a_stored_weight():
    """Quantize `up` first: then `down` keeps its scale, and says why."""
    params = call("rtn", where=lambda s: s.name.endswith(".up")).params
    result = mbq.mbq(
        mbq_blocks.gated(),
        params,
        mbq_blocks.batches(),
        PLAIN,
        where=lambda s: s.name.endswith(".down"),
    )
    for group in result.report.groups:
        assert group.fold == ()
        assert "up is stored already" in group.note
    up = [p["layers"][0]["up"] for p in (params, result.params)]
    np.testing.assert_array_equal(up[0].codes(), up[1].codes())
    assert isinstance(result.params["layers"][0]["down"], quantize.QTensor)


def test_low_precision_programs_are_scaled():
    """bfloat16 activations: folding rounds, which is no reason to leave it out."""
    narrow = lambda tree: jax.tree.map(lambda a: a.astype(jnp.bfloat16), tree)  # noqa: E731
    batch = mbq.Batch(narrow(mbq_blocks.batches()[0].inputs))
    params = narrow(mbq_blocks.make_params())
    report = mbq.awq(mbq_blocks.gated(), params, [batch], PLAIN).report
    assert len(report.groups) == 6 and all(g.fold for g in report.groups)
    assert 1e-5 < max(g.change for g in report.groups) < 0.05


def test_program_without_blocks():
    def apply(p, x):
        return jax.nn.relu((x * p["norm"]) @ p["up"]) @ p["down"]

    params = mbq_blocks.make_params()["layers"][0]
    batch = mbq_blocks.batches()[0]
    result = mbq.mbq(
        apply,
        params,
        [batch._replace(targets=None)],
        CONFIG,
        loss=lambda y, _: (y**2).mean((1, 2)).sum(),
    )
    up, down = result.report.groups
    assert (up.block, up.sites, up.fold) == (0, ("up",), ("norm",))
    assert (down.sites, down.inspect, down.fold) == (("down",), "down", ("up",))
    assert result.report.notes == ()
