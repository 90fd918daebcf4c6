"""Which images a trial got right, through batches, folders and curves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import fault_nets

from jeff import base
from jeff.faults import on_weights
from jeff.sweep import (
    Margin,
    PerImage,
    accuracy_any_images,
    accuracy_curve,
    right_answers,
    run,
    weight_and_feature_faults,
)

KEY = jax.random.key(1)
RATES = [0.0, 0.2]


def flips(rate):
    return base.FaultModel(
        lambda key, like: jax.random.bernoulli(key, rate, like.shape),
        lambda hit, x: jnp.where(hit, -4 * x, x),
    )


def swept(per_image, **how):
    net = fault_nets.linear()
    trial = weight_and_feature_faults(
        net.apply, net.params, lambda rate: on_weights(flips(rate)), flips,
        per_image=per_image,
    )  # fmt: skip
    how = {"unit": 3, "batch": 4, "plan": "map", "devices": 1} | how
    return run(trial, KEY, rates=RATES, trials=6, data=net.data, **how)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    result = swept(10, directory=folder)
    return result, swept(10, directory=folder, chunk=1)


def test_a_bit_for_every_image(found):
    result, again = found
    packed = result.stats.right
    assert packed.shape == (1, 2, 6, 2) and packed.dtype == np.uint8
    np.testing.assert_array_equal(again.stats.right, packed)
    right = right_answers(result.stats, 10)
    assert right.shape == (1, 2, 6, 10) and right.dtype == bool
    net = fault_nets.linear()
    clean = net.data.golden.argmax(-1) == net.data.labels
    assert (right[0, 0] == clean).all()  # rate 0
    assert 0 < right[0, 1].sum() < 60 and len(set(map(bytes, right[0, 1]))) > 1
    np.testing.assert_array_equal(right.sum(-1), result.stats.total.correct)


def test_batches_and_other_counts_stay_what_they_are(found):
    other = swept(10, unit=6, batch=10)
    np.testing.assert_array_equal(other.stats.right, found[0].stats.right)
    plain = swept(None)
    for name, count in plain.stats._asdict().items():
        np.testing.assert_array_equal(getattr(found[0].stats.total, name), count)


def test_a_curve_says_what_new_images_would_give(found):
    result, _ = found
    right = right_answers(result.rate_point(0, 1), 10)
    _, point = accuracy_curve(result)
    assert point.any_images == accuracy_any_images(right.sum(1), right.sum(0))
    assert point.any_images.value == point.accuracy.value
    assert point.any_images.low < point.accuracy.low
    assert point.test is not None and point.test >= 0
    _, plain = accuracy_curve(result._replace(stats=result.stats.total))
    assert plain.any_images is None and plain.test is None
    assert plain.accuracy == point.accuracy and plain.sdc == point.sdc
    stop = Margin(margin=0.3, count="total.correct", out_of="total.images",
                  method="empirical_bernstein")  # fmt: skip
    _, rigorous = accuracy_curve(result, stop=stop)
    assert rigorous.any_images is None and rigorous.test is not None


def test_errors():
    with pytest.raises(ValueError, match="per_image=9, but the sweep has 10 examples"):
        swept(9)
    with pytest.raises(ValueError, match="per_image must be at least 1"):
        swept(0)
    with pytest.raises(TypeError, match="per_image must be a whole number, got True"):
        swept(True)
    with pytest.raises(TypeError, match="are dict, not PerImage: give the campaign"):
        right_answers({}, 3)
    with pytest.raises(ValueError, match="images=9, but statistics are of about 8"):
        right_answers(PerImage(None, np.zeros((2, 1), np.uint8)), 9)
