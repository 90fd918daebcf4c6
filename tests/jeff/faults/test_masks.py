import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jeff.faults import bit_words, choose, marked, mask
from jeff.faults.masks import marked_each
from jeff.faults.method import METHODS

N = 20_000


def _values(key, shape):
    return jax.random.bits(key, shape, "uint16").astype("int32") + 1


@pytest.fixture(scope="module", params=METHODS)
def draws(request):
    """Masks with values at rising rates below one bound, from one program."""
    method = request.param

    @jax.jit
    def draw(rate):
        key = jax.random.key(3)
        return marked(key, rate, (100, 200), _values, method=method, max_rate=0.25)

    return method, [(rate, *draw(rate)) for rate in (0.0, 0.03125, 0.25)]


def test_rates_are_right_and_lower_ones_hit_a_subset_with_the_same_values(draws):
    """Spec, test 4, nestedness."""
    method, drawn = draws
    hit_before, before = np.zeros((100, 200), bool), np.zeros((100, 200), int)
    for rate, mask_, value in drawn:
        hit, value = np.asarray(mask_.hit), np.asarray(value)
        assert hit.shape == (100, 200) and hit.dtype == bool and not mask_.overflow
        assert abs(hit.sum() - N * rate) <= 4 * math.sqrt(N * rate * (1 - rate))
        np.testing.assert_array_equal(value > 0, hit)
        assert not (hit_before & ~hit).any()
        np.testing.assert_array_equal(np.where(hit_before, value, 0), before)
        hit_before, before = hit, value
    if method == "sparse":  # a mask without values, with no rate above its own
        alone = mask(jax.random.key(3), 0.25, (100, 200), method=method)
        np.testing.assert_array_equal(alone.hit, hit)


def test_sparse_and_dense_masks_have_one_distribution():
    """Counts per row and gaps between hits, of both samplers (spec: test 4)."""
    gaps, counts = {}, {}
    for method in ("sparse", "dense"):
        hit = np.asarray(mask(jax.random.key(9), 0.05, (400, 250), method=method).hit)
        counts[method] = hit.sum(axis=1)
        gaps[method] = np.diff(np.flatnonzero(hit.ravel()))
        mean, variance = 250 * 0.05, 250 * 0.05 * 0.95
        assert abs(counts[method].mean() - mean) < 4 * math.sqrt(variance / 400)
        ratio = counts[method].var() / variance
        assert abs(ratio - 1) < 4 * math.sqrt(2 / 400)
    assert stats.ks_2samp(gaps["sparse"], gaps["dense"]).pvalue > 1e-3


def test_the_method_follows_rate_and_size():
    assert choose(1e-4, 10**6) == "sparse"
    assert choose(0.1, 10**6) == "dense"
    assert choose(1e-3, 100) == "dense"  # the buffer is too long to pay
    assert choose(1e-9, 20) == "sparse"  # nothing else reaches it
    assert choose(0.0, 20) == "dense"


@pytest.mark.parametrize("rate", [-0.1, 1.5, float("nan"), float("inf")])
def test_rates_outside_the_unit_interval_are_refused(rate, key):
    with pytest.raises(ValueError, match=f"rate must be in .0, 1., got {rate}"):
        mask(key, rate, (3,))
    with pytest.raises(ValueError, match="max_rate must be in"):
        mask(key, 0.0, (3,), max_rate=rate)


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (TypeError, "rate must be a real number in .0, 1., got 'x'", {"rate": "x"}),
        (TypeError, "rate must be a real number", {"rate": True}),
        (ValueError, r"rate must be one number, got shape \(2,\)", {"rate": [0.1] * 2}),
        (ValueError, "method must be one of .*, got 'fast'", {"method": "fast"}),
        (ValueError, "rate must be at most max_rate=0.05, got 0.1", {"max_rate": 0.05}),
    ],
)
def test_bad_arguments_are_named(error, message, arguments, key):
    with pytest.raises(error, match=message):
        mask(key, **{"rate": 0.1, "shape": (3,), **arguments})


def test_traced_rates_need_a_known_bound_and_arrays_a_key_each(key):
    with pytest.raises(ValueError, match="'sparse' needs max_rate"):
        jax.eval_shape(lambda r: mask(key, r, (3,), method="sparse"), 0.1)
    with pytest.raises(ValueError, match="max_rate must be known"):
        jax.eval_shape(lambda r: mask(key, 0.1, (3,), max_rate=r), 0.1)
    with pytest.raises(ValueError, match="1 keys for 2 arrays"):
        marked_each([key], 0.1, [(3,), (4,)], None)


@pytest.mark.parametrize(
    ("method", "rate"), [("bit_plane", 1e-4), ("dense", 1e-9), ("sparse", 1e-16)]
)
def test_rates_below_the_resolution_are_refused(method, rate, key):
    message = "cannot be reached by method" if method != "sparse" else "resolution"
    with pytest.raises(ValueError, match=message):
        mask(key, rate, (100,), method=method)


@pytest.mark.parametrize("method", METHODS)
def test_traced_rates_that_cannot_be_drawn_overflow(method):
    bad = [np.nan, -0.1, 0.5, 1.5, 1e-12, 1e-40]  # of a largest rate of 0.25

    @jax.jit
    @jax.vmap
    def overflow(rate):
        key = jax.random.key(0)
        drawn = mask(key, rate, (40,), method=method, max_rate=0.25).overflow
        rates = jnp.array([0.25, 0.0]).at[1].set(rate)
        word = bit_words(key, rates, (40,), bits=2, method=method, max_rate=0.25)
        return drawn, word.overflow

    masks, words = overflow(np.float32([0.0, 0.25, 0.125, *bad]))
    expected = [False] * 3 + [True] * len(bad)
    np.testing.assert_array_equal(masks, expected)
    np.testing.assert_array_equal(words, expected)


def test_without_a_largest_rate_traced_ones_end_at_1():
    overflow = jax.jit(
        jax.vmap(lambda rate: mask(jax.random.key(0), rate, (4,)).overflow)
    )
    np.testing.assert_array_equal(
        overflow(np.float32([0, 1, 1.1, np.nan, 1e-11])), [0, 0, 1, 1, 1]
    )


def test_known_rates_that_are_0_as_float32_are_refused():
    with pytest.raises(ValueError, match="rate must be 0 or a float32 above 0, got 1e"):
        mask(jax.random.key(0), 1e-50, (4,))
    with pytest.raises(ValueError, match="max_rate must be 0 or"):
        mask(jax.random.key(0), 0.0, (4,), max_rate=1e-50)
