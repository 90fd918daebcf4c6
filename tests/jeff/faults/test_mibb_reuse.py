"""MiBB of elements that are used over and over: tiles, and faults that persist."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from scipy import stats

import jeff
from jeff.faults import mac_fault_rate, mibb, mibb_at_sites, on_features


def _sampled(shape, rate, **settings):
    """One compiled draw of settings that do not depend on the rate."""
    sample = jax.jit(lambda k: mibb(rate, **settings).sample(k, jnp.zeros(shape)))
    return sample(jax.random.key(20))


def test_tiles_repeat_positions_but_not_biases():
    faults = _sampled((2, 10, 7), 0.3, tile=(4, 3))
    hit, bias = np.asarray(faults.hit), np.asarray(faults.bias)
    rows, columns = np.indices((10, 7))
    for image in hit:
        np.testing.assert_array_equal(image, image[rows % 4, columns % 3])
    assert (hit[0] != hit[1]).any()
    same = hit[0, :4, :3] & hit[0, 4:8, :3]
    assert (bias[0, :4, :3] != bias[0, 4:8, :3])[same].any()


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_tiles_repeat_in_the_feature_maps_of_every_example(layout):
    """Through sites and examples, for many devices at once; hits read +S of nothing."""
    rate, batch, tile = 0.02, 40, {"N": 1, "H": 4, "W": 3, "C": 2}
    period = tuple(tile[axis] for axis in layout[1:])
    sizes = {"N": batch, "H": 6, "W": 7, "C": 4}
    image = jnp.zeros([2 if axis == "C" else sizes[axis] for axis in layout])
    kernel = jnp.ones((3, 3, 2, 4))  # 18 multiplications per output

    def apply(p, x):
        layouts = (layout, "HWIO", layout)
        return lax.conv_general_dilated(x, p, (1, 1), "SAME", dimension_numbers=layouts)

    @jax.jit
    def run(keys, examples):
        def device(key):
            model = mibb_at_sites(rate, tile=period, max_value_mode=True)
            rule = on_features(model, key, examples=examples)
            return jeff.rewrite(apply, rule)(kernel, image) > 0

        return jax.vmap(device)(keys), device(keys[1])

    keys = jax.random.split(jax.random.key(3), 2)
    numbers = jnp.arange(batch, dtype=jnp.int32)
    hit, alone = (np.asarray(a) for a in run(keys, numbers))
    np.testing.assert_array_equal(hit[1], alone)
    assert (hit[0] != hit[1]).any() and (hit[0, 0] != hit[0, 1]).any()
    places = np.indices([sizes[axis] for axis in layout])
    within = tuple(
        p if axis == "N" else p % tile[axis]
        for axis, p in zip(layout, places, strict=True)
    )
    first = hit[0][tuple(slice(t) if t > 1 else slice(None) for t in (1, *period))]
    np.testing.assert_array_equal(hit[0], hit[0][within])
    p = float(mac_fault_rate(rate, 18))
    n = first.size  # positions of their own
    assert n == batch * 24 and abs(first.sum() - n * p) < 4 * math.sqrt(n * p * (1 - p))
    other = np.asarray(run(keys, numbers[::-1])[1])
    np.testing.assert_array_equal(other[::-1], alone)


def test_persistent_faults_have_lower_bits_and_add_up():
    n, bits = 20_000, 8  # A = min(7, floor(log2 36)) = 5
    faults = _sampled((n,), 0.1, accumulations=36)
    hit, bias = np.asarray(faults.hit), np.asarray(faults.bias)
    p = 0.1 * (bits + 5) / bits
    assert abs(hit.sum() - n * p) < 4 * math.sqrt(n * p * (1 - p))
    values = {math.floor(36 * s * 2.0**e) for s in (-1, 1) for e in range(-5, 8)}
    assert set(np.unique(bias[hit])) == values


def test_a_persistent_fault_disturbs_a_share_of_its_uses():
    """Moments of |floor(n_eff s 2^e)|, n_eff of the binomial law, by enumeration."""
    n, uses, share = 8000, 36, 0.25
    sampled = _sampled((n,), 1.0, accumulations=uses, activation_rate=share)
    bias = np.asarray(sampled.bias)
    assert np.abs(bias).max() <= uses * 128 and (bias == np.floor(bias)).all()
    times = np.arange(uses + 1)
    power = np.concatenate([s * 2.0 ** np.arange(-5, 8) for s in (-1, 1)])
    size = np.abs(np.floor(times[:, None] * power))
    chance = stats.binom.pmf(times, uses, share)[:, None] / power.size
    mean, square = (chance * size).sum(), (chance * size**2).sum()
    deviation = math.sqrt((square - mean**2) / n)  # 2 % of the mean
    assert abs(np.abs(bias).mean() - mean) < 4 * deviation


@pytest.mark.parametrize("settings", [{}, {"max_rate": 2e-5, "reference_quirks": True}])
def test_persistent_faults_are_sampled_alike_with_and_without_jit(settings, key):
    like = jnp.zeros(8000)

    def sample(key):
        model = mibb(1e-5, macs=64, accumulations=36, **settings)
        return model.sample(key, like)

    eager, traced = sample(key), jax.jit(sample)(key)
    np.testing.assert_array_equal(eager.hit, traced.hit)
    np.testing.assert_array_equal(eager.bias, traced.bias)
    assert int(eager.hit.sum()) > 0
