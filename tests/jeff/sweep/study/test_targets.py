"""What a fault study hits, and how it draws."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import fault_nets

from jeff import faults
from jeff.faults import MacCount, adsaf, bit_flip, mibb, on_weights
from jeff.program import sites as jeff_sites
from jeff.sweep import FAULTS, named_fault
from jeff.sweep.study.named_faults import ONE, Draw
from jeff.sweep.study.stacks import stacks
from jeff.sweep.study.targets import (
    expected_faults,
    feature_targets,
    how_to_draw,
    model_of_rate,
    weight_targets,
)


@pytest.mark.parametrize("name", ["bit-flip", "adsaf", "adsaf-cells"])
def test_named_faults_hit_as_often_as_they_say(name, key):
    """Faults that are drawn, within 4 standard errors of the expected number."""
    fault, params = FAULTS[name], {"w": jnp.zeros(4000)}
    targets = weight_targets(params)
    draw = how_to_draw(fault, [0.02], targets)
    model = model_of_rate(fault, draw, "weights", None)(0.02)
    drawn = jax.jit(model.sample)(key, params).leaves["w"]
    marks = [np.asarray(a) for a in jax.tree.leaves(drawn) if a.ndim]
    if name == "adsaf":  # a mark per cell, an array for each polarity
        hits = sum((m > 0).sum() for m in marks)
    else:  # a bit per cell, in the first array
        hits = np.bitwise_count(marks[0]).sum()
    expected = expected_faults(fault, 0.02, targets)
    assert abs(hits - expected) < 4 * expected**0.5


def test_sigmas_and_features_count_what_they_hit():
    apply, params, data = fault_nets.scanned()
    targets = feature_targets(apply, params, data.inputs)
    assert expected_faults(FAULTS["gaussian"], 0.1, targets) == 24 + 72
    assert expected_faults(FAULTS["gaussian"], 0.0, targets) == 0
    assert expected_faults(FAULTS["salt-and-pepper"], 0.5, targets) == 48
    how_to_draw(FAULTS["lognormal"], [0.1, 1e-12], weight_targets(params))  # no sampler


def test_targets_are_those_that_the_rules_hit():
    apply, params, data = fault_nets.scanned()
    named = weight_targets(params, "la")
    names = [t.name for t in named]
    draw = how_to_draw(FAULTS["bit-flip"], [0.5], named)
    hit = on_weights(FAULTS["bit-flip"].make(0.5, draw, ONE), where="la")
    assert list(hit.sample(jax.random.key(0), params).leaves) == names == ["layers"]
    targets = feature_targets(apply, params, data.inputs)
    assert [(t.name, t.elements, t.count.macs, t.times) for t in targets] == [
        ("into", 4, 5, 6), ("layers", 4, 4, 18),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="'inot' chooses no site; nearest: into"):
        feature_targets(apply, params, data.inputs, "inot")


# What a sweep chooses by itself, and what only trains: no settings.
CHOSEN = {
    "rate", "sigma", "method", "max_rate", "macs", "accumulations", "gradient",
}  # fmt: skip
OWN = {"bit_shares", "tree_width"}


@pytest.mark.parametrize("name", FAULTS)
def test_all_that_can_be_set_of_a_model_can_be_set_in_a_sweep(name):
    function = getattr(faults, name.replace("-", "_"))
    there = set(inspect.signature(function).parameters) - CHOSEN
    if name != "adsaf-cells":  # elsewhere it needs a rate that is known
        there -= {"reference_quirks"}
    assert set(FAULTS[name].settings) - OWN == there
    assert FAULTS[name].given == {}


@pytest.mark.parametrize(
    ("name", "settings", "like", "count"),
    [
        ("bit-flip", {"bit_shares": (1, 0, 0.5, 1, 0, 0, 0, 0)}, jnp.int8, ONE),
        ("stuck-at", {"bits": 3, "one_share": 1.0}, jnp.int8, ONE),
        ("adsaf-cells", {"bits": 6, "cell_bits": 2}, jnp.float32, ONE),
        ("mibb", {"bits": 6}, jnp.float32, MacCount(4, 9)),
        ("mibb", {"tree_width": 4, "tile": (50,)}, jnp.float32, MacCount(4, 9)),
    ],
)
def test_settings_change_what_is_hit(name, settings, like, count, key):
    """Marks drawn, within 4 standard errors of the expected number."""
    fault, rate, size = named_fault(name, settings), 0.02, 20_000
    array = jax.ShapeDtypeStruct((size,), like)
    model = fault.make(rate, Draw(0.1), count)
    drawn = jax.jit(lambda k: model.sample(k, array))(key)
    marks = np.asarray(drawn[0])  # words, cells or hits
    stored = 8 if like == jnp.int8 else 32
    expected = size * fault.hits(rate, stored, count)
    if name == "adsaf-cells":  # a cell of two bits marks both, the topmost has one
        cells = np.stack([marks & 3, marks >> 2 & 3, marks >> 4])
        assert marks.max() < 32 and set(np.unique(cells[:2])) == {0, 3}
        hits = (cells > 0).sum()
    else:
        hits = np.bitwise_count(marks.view(np.uint8)).sum()
    spread = expected**0.5 * (20 if "tile" in settings else 1)  # 50 places, 400 times
    assert abs(hits - expected) < 4 * spread
    if "bit_shares" in settings:
        by_bit = [(marks >> b & 1).sum() for b in range(8)]
        assert by_bit[1] == by_bit[4] == by_bit[7] == 0
        assert abs(by_bit[2] - size * rate / 2) < 4 * (size * rate / 2) ** 0.5
    if name == "stuck-at":
        assert marks.max() < 8 and (np.asarray(drawn.value) == marks).all()


def test_adder_trees_are_counted_and_used(key):
    def apply(p, x):
        return x @ p["w"]

    params, x = {"w": jnp.ones((40, 3))}, jnp.ones((5, 40))
    fault = named_fault("mibb", {"tree_width": 16})
    (target,) = feature_targets(apply, params, x, count=fault.count)
    assert target.count == MacCount(16, 3)
    (site,) = jeff_sites(apply, params, x)
    model = model_of_rate(fault, Draw(0.1), "features", None)(0.1)(site)
    own = mibb(0.1, macs=16, accumulations=3, max_rate=0.1)
    like = jnp.zeros(300)
    for one, other in zip(model.sample(key, like), own.sample(key, like), strict=True):
        np.testing.assert_array_equal(one, other)


def test_look_ups_are_not_hit():
    def apply(p, i):
        return p["table"][i] @ p["head"]

    params = {"table": jnp.ones((4, 2)), "head": jnp.ones((2, 3))}
    inputs = jnp.zeros((6,), jnp.int32)
    assert [t.name for t in feature_targets(apply, params, inputs, "")] == ["head"]
    with pytest.raises(ValueError, match="'table' chooses look-ups only"):
        feature_targets(apply, params, inputs, "table")


def layered(axis):
    """A scan over stacked weights and biases, the stack on an axis of the weights."""

    def apply(p, x):
        def layer(h, layer):
            return jnp.tanh(h @ layer[0] + layer[1]), None

        weights = jnp.moveaxis(p["w"], axis, 0)
        return jax.lax.scan(layer, x, (weights, p["b"]))[0] @ p["head"]

    rng = np.random.default_rng(0)
    w = rng.standard_normal((3, 4, 4)) * np.array([1, 8, 90])[:, None, None]
    b = rng.standard_normal((3, 4)) * np.array([[1], [5], [70]])
    params = {"w": np.moveaxis(w, 0, axis), "b": b, "head": rng.random((4, 5))}
    return apply, {n: jnp.asarray(a, jnp.float32) for n, a in params.items()}


@pytest.mark.parametrize("axis", [0, 1])
def test_a_layer_of_a_scan_has_its_own_range(axis, key):
    apply, params = layered(axis)
    axes = stacks(apply, params, jnp.ones((6, 4)))
    assert axes == {"b": (0,), "w": (axis,)}
    fault = FAULTS["adsaf"]
    model = model_of_rate(fault, Draw(0.5), "weights", None, axes)(0.5)
    hit = jax.jit(model.sample)(key, params)
    faulty = jax.jit(model.inject)(hit, params)
    for name in ("w", "b"):
        own = axes[name][0]
        for i in range(3):
            alone = jax.tree.map(
                lambda a, i=i, own=own: a if not a.ndim else jnp.take(a, i, own),
                hit.leaves[name],
            )
            expected = adsaf(0.5).inject(alone, jnp.take(params[name], i, own))
            np.testing.assert_array_equal(jnp.take(faulty[name], i, own), expected)
    whole = model_of_rate(fault, Draw(0.5), "weights", None)(0.5)
    assert (whole.inject(hit, params)["w"] != faulty["w"]).any()


def test_models_without_a_range_take_stacks_as_they_are(key):
    apply, params = layered(0)
    model = model_of_rate(FAULTS["bit-flip"], Draw(0.1), "weights", "w", {"w": (0,)})
    own = on_weights(bit_flip(0.1, max_rate=0.1), where="w")
    for made in (model(0.1), own):
        hit = made.sample(key, params).leaves["w"].word
        np.testing.assert_array_equal(hit, own.sample(key, params).leaves["w"].word)


def test_stacks_of_loops_within_loops():
    def apply(p, x):
        def inner(h, w):
            return h * w["scale"] + p["bias"], None

        def outer(h, w):
            return jax.lax.scan(inner, h, w)[0], None

        return jax.lax.scan(outer, x, {"scale": p["scale"]})[0] @ p["head"]

    params = {"scale": jnp.ones((2, 3, 4)), "bias": jnp.ones(4), "head": jnp.eye(4)}
    assert stacks(apply, params, jnp.ones((5, 4))) == {"scale": (0, 1)}
