"""What a fault study hits, and how it draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import fault_nets

from jeff.faults import on_weights
from jeff.sweep import FAULTS
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
    hit = on_weights(FAULTS["bit-flip"].make(0.5, draw, 1), where="la")
    assert list(hit.sample(jax.random.key(0), params).leaves) == names == ["layers"]
    targets = feature_targets(apply, params, data.inputs)
    assert [(t.name, t.elements, t.macs, t.times) for t in targets] == [
        ("into", 4, 5, 6), ("layers", 4, 4, 18),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="'inot' chooses no site; nearest: into"):
        feature_targets(apply, params, data.inputs, "inot")
