import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff.evaluate import auroc, delong


def by_pairs(scores, positive):
    """Mann and Whitney's statistic over all pairs."""
    scores, positive = np.asarray(scores), np.asarray(positive)
    up, down = scores[positive][:, None], scores[~positive][None]
    return ((up > down) + 0.5 * (up == down)).mean()


def drawn(n, levels, shift=0.0):
    """Scores on few levels (many ties), a third of them positive and `shift` higher."""
    positive = np.arange(n) % 3 == 0
    scores = levels * (np.random.default_rng(1).normal(size=n) + shift * positive)
    return jnp.asarray(np.round(scores), jnp.float32), jnp.asarray(positive)


@pytest.mark.parametrize("levels", [0.5, 3, 1e6])
def test_equals_all_pairs(levels):
    scores, positive = drawn(90, levels, shift=1.0)
    np.testing.assert_allclose(
        auroc(scores, positive), by_pairs(scores, positive), 1e-6
    )


@pytest.mark.parametrize(
    ("scores", "area"),
    [
        ([0.0, 1, 2, 3], 1.0),
        ([3.0, 2, 1, 0], 0.0),
        ([1.0, 1, 1, 1], 0.5),
        ([-0.0, 0, 0, -0.0], 0.5),  # zeros are equal, whatever their sign
        ([-jnp.inf, 0, 0, jnp.inf], 0.875),  # 3 pairs in order and a tie
        ([0.0, 1, jnp.nan, 2], math.nan),
        ([0.0, jnp.nan, 1, 2], math.nan),
    ],
)
def test_hand_worked(scores, area):
    """Two negatives, then two positives: four pairs."""
    positive = jnp.array([False, False, True, True])
    np.testing.assert_equal(float(auroc(jnp.array(scores), positive)), area)


def test_integers_and_one_kind_only():
    scores = jnp.array([0, 200, 255, 3], jnp.uint8)
    assert auroc(scores, jnp.array([True, False, False, False])) == 0
    assert jnp.isnan(auroc(scores, jnp.ones(4, bool)))
    assert jnp.isnan(auroc(scores, jnp.zeros(4, bool)))


def test_only_the_order_counts():
    scores, positive = drawn(90, 3)
    area = auroc(scores, positive)
    other = jnp.asarray(np.exp(np.asarray(scores) / 10))
    np.testing.assert_array_equal(auroc(other, positive), area)
    np.testing.assert_allclose(auroc(-scores, positive), 1 - area, rtol=1e-6)


def test_jit_vmap_and_no_retrace():
    rng = np.random.default_rng(1)
    scores = jnp.asarray(rng.normal(size=(4, 30)), jnp.float32)
    positive = jnp.asarray(rng.random((4, 30)) > 0.5)
    traced = jax.jit(jax.vmap(chex.assert_max_traces(auroc, n=1)))
    for _ in range(2):
        both = zip(np.asarray(scores), np.asarray(positive), strict=True)
        expected = [by_pairs(s, p) for s, p in both]
        np.testing.assert_allclose(traced(scores, positive), expected, rtol=1e-6)


def test_delong_is_the_variance_of_the_definition():
    """Components and variance by loops over the examples, in float64."""
    scores, positive = drawn(90, 2, shift=0.8)
    s, p = np.asarray(scores), np.asarray(positive)
    less = (s[:, None] > s[None]) + 0.5 * (s[:, None] == s[None])
    v, w = less[p][:, ~p].mean(1), less[p][:, ~p].mean(0)
    area, spread = v.mean(), math.sqrt(v.var(ddof=1) / 30 + w.var(ddof=1) / 60)
    found = delong(scores, positive)
    assert found.trials == 90
    np.testing.assert_allclose(found.value, area, rtol=1e-6)
    half = 1.959964 * spread / (area * (1 - area))
    ends = [1 / (1 + math.exp(-math.log(area / (1 - area)) - d)) for d in (-half, half)]
    np.testing.assert_allclose(found[1:3], ends, rtol=1e-5)


def test_delong_covers():
    """Normal scores shifted by 1: the area is Phi(1 / sqrt(2)) = 0.76025.

    Of 200 intervals of level 0.9, 180 +- 4.2 cover by chance; four standard errors are
    17. DeLong's variance is asymptotic, but with 30 and 60 examples it is good enough.
    """
    positive = np.arange(90) % 3 == 0
    noise = (np.random.default_rng(1).normal(size=(200, 90)) + positive).astype("f4")
    found = [delong(jnp.asarray(s), jnp.asarray(positive), level=0.9) for s in noise]
    covered = sum(f.low <= 0.76025 <= f.high for f in found)
    assert abs(covered - 180) <= 17


def test_delong_at_the_ends():
    """Of m disjoint pairs all are in order with probability area^m."""
    positive = jnp.array([False] * 5 + [True] * 10)
    found = delong(jnp.arange(15.0), positive)
    assert found.value == found.high == 1
    np.testing.assert_allclose(found.low**5, 0.025, rtol=1e-9)
    mirrored = delong(-jnp.arange(15.0), positive)
    np.testing.assert_allclose(mirrored[:3], (0, 0, 1 - found.low), atol=1e-12)


@pytest.mark.parametrize(
    ("scores", "positive", "error", "message"),
    [
        (jnp.zeros(3), jnp.zeros(4, bool), ValueError, r"\(3,\), \(4,\)"),
        (jnp.zeros((2, 2)), jnp.zeros((2, 2), bool), ValueError, r"\(2, 2\)"),
        (jnp.zeros(3), jnp.zeros(3), TypeError, "positive.*float32"),
        (jnp.zeros(3, bool), jnp.zeros(3, bool), TypeError, "scores.*bool"),
    ],
)
def test_errors_name_the_value(scores, positive, error, message):
    for measure in (auroc, delong):
        with pytest.raises(error, match=message):
            measure(scores, positive)


def test_delong_needs_two_of_each_and_numbers():
    positive = jnp.array([True, False, False])
    with pytest.raises(ValueError, match="1 of 3"):
        delong(jnp.zeros(3), positive)
    with pytest.raises(ValueError, match="NaN"):
        delong(jnp.full(4, jnp.nan), jnp.arange(4) < 2)
    with pytest.raises(ValueError, match="level=1"):
        delong(jnp.zeros(4), jnp.arange(4) < 2, level=1)
