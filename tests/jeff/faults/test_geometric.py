import math

import jax
import numpy as np
import pytest
from scipy import stats

from jeff.faults import geometric

SIZE, RATE, TRIALS = 3000, 0.01, 2000


SHAPE = geometric.words_per_gap(SIZE, RATE), geometric.capacity(SIZE, RATE) + 1


def _positions(words, size, rate):
    """Of one page, all of which is wanted; without the place that tells an overflow."""
    groups = [(1, words.shape[1])]
    index, overflow = geometric.positions(words, size, rate, used=[size], groups=groups)
    return index[:-1], overflow[0]


POSITIONS = jax.jit(jax.vmap(lambda words: _positions(words, SIZE, RATE)))


@pytest.mark.parametrize("rate", [0.3, 0.01, 1e-4])
def test_digits_multiply_to_the_geometric_distribution(rate):
    """P(gap) from the digits' chances against q^g p; gaps of one to three digits."""
    chances = geometric._chances(2_000_000, rate)
    for gap in (0, 1, 7, 254, 256, 5000, 70_000):
        chance = 1.0
        for j, units in enumerate(chances):
            top = j == len(chances) - 1  # where the last value stands for all beyond
            digit = gap >> 8 * j if top else gap >> 8 * j & 255
            within = digit < len(units) - top
            chance *= units[digit] / 2**32 if within else 0.0
        expected = (1 - rate) ** gap * rate
        # Every digit's probability is off by 2^-32 at most; the smallest are 1 / 256
        # or so where the whole is not negligible.
        assert chance == pytest.approx(expected, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("rate", [0.9, 0.3, 0.01, 1e-4, 1e-9])
def test_alias_tables_hold_the_chances_to_the_unit(rate):
    for chance in geometric._chances(2**18, rate):
        table = geometric._alias_table(chance).astype(np.int64)
        bound, alias = table >> 8, table & 255
        held = np.bincount(np.arange(256), bound, 256)
        held += np.bincount(alias, 2**24 - bound, 256)
        np.testing.assert_array_equal(held[: len(chance)], chance)
        assert held.sum() == 2**32


@pytest.fixture(scope="module")
def draws():
    words = np.random.default_rng(5).integers(0, 2**32, (TRIALS, *SHAPE), np.uint32)
    index, overflow = POSITIONS(words)
    assert not overflow.any()
    return np.asarray(index)


def test_counts_are_binomial(draws):
    counts = (draws < SIZE).sum(axis=1)
    mean, variance = SIZE * RATE, SIZE * RATE * (1 - RATE)
    # The standard errors of a mean and of a variance over near-normal counts.
    assert abs(counts.mean() - mean) < 4 * math.sqrt(variance / TRIALS)
    assert abs(counts.var() - variance) < 4 * variance * math.sqrt(2 / TRIALS)


def test_every_position_is_as_likely_as_any_other(draws):
    hits = np.bincount(draws[draws < SIZE] // 100, minlength=30)  # 30 equal stretches
    assert stats.chisquare(hits).pvalue > 1e-4


def test_gaps_are_geometric(draws):
    gaps = draws[:, :10].copy()  # ten hits lie below 3000 in all but 1e-5 of the rows
    gaps[:, 1:] -= draws[:, :9] + 1
    gaps = gaps[(draws[:, :10] < SIZE).all(axis=1)].ravel()
    edges = np.unique(stats.geom.ppf(np.linspace(0, 1, 21), RATE, loc=-1))
    edges = np.concatenate([[-1], edges[1:-1], [np.inf]])
    seen, _ = np.histogram(gaps, edges + 0.5)
    chance = np.diff(stats.geom.cdf(edges, RATE, loc=-1))
    assert stats.chisquare(seen, chance * gaps.size).pvalue > 1e-4
    # Against each other: the correlation of neighbors has an error of 1 / sqrt(n).
    assert abs(np.corrcoef(gaps[:-1], gaps[1:])[0, 1]) < 4.5 / math.sqrt(gaps.size)


def test_positions_rise_and_sums_beyond_32_bits_do_not_come_back():
    size, rate = 2**18, 0.25  # 65,536 + 1 gaps of up to 2^18
    count = geometric.capacity(size, rate) + 1
    words = np.random.default_rng(6).integers(0, 2**32, (1, count), np.uint32)
    index, overflow = jax.jit(lambda w: _positions(w, size, rate))(words)
    index = np.asarray(index)
    inside = index < size
    assert not overflow and (np.diff(inside.astype(int)) <= 0).all()
    assert (np.diff(index[inside]) > 0).all() and index[0] >= 0
    assert abs(inside.sum() - size * rate) < 4 * math.sqrt(size * rate * (1 - rate))


def test_a_buffer_that_is_too_short_is_flagged():
    """Spec, test 4, overflow."""
    words = np.zeros((TRIALS, *SHAPE), np.uint32)  # no gaps: every position is hit
    # The last two gaps are 200 + 8 * 256: only the first of them ends below 3000.
    words[1, :, -2:] = np.array([[200 << 24], [8 << 24]])
    index, overflow = map(np.asarray, POSITIONS(words))
    length = SHAPE[1] - 1
    np.testing.assert_array_equal(index[0], np.arange(length))
    np.testing.assert_array_equal(index[1, :-1], np.arange(length - 1))
    assert index[1, -1] == length - 1 + 200 + 8 * 256
    np.testing.assert_array_equal(overflow[:2], [True, False])


@pytest.mark.parametrize(
    ("size", "rate"), [(2**18, 1e-3), (100, 0.5), (10**6, 1e-3), (10**5, 1e-6)]
)
def test_the_capacity_bounds_the_true_probability_of_overflow(size, rate):
    length = geometric.capacity(size, rate)
    assert stats.binom.sf(length, size, rate) <= geometric.OVERFLOW_PROBABILITY


def _random(seed, *shape):
    return np.random.default_rng(seed).integers(0, 2**32, shape, np.uint32)


@pytest.mark.parametrize("rate", [0.01, 0.1])
def test_pages_in_one_buffer_are_those_drawn_alone(rate):
    """Also where only a part of a page is wanted, and where sums pass 32 bits."""
    size, used = 2**18, [2**18, 2**18, 70_000, 0]
    whole, part = (geometric.capacity(n, rate) + 1 for n in (size, 70_000))
    # Sums over a page's places are too large for 32 bits at the higher rate only.
    assert (whole * (size + 1) >= 2**32) == (rate == 0.1)
    groups = [(2, whole), (2, part)]
    each = [
        _random(i, geometric.words_per_gap(size, rate), whole)[:, :count]
        for i, count in enumerate([whole, whole, part, part])
    ]
    draw = jax.jit(
        lambda words: geometric.positions(
            words, size, rate, used=used, groups=groups
        )
    )  # fmt: skip
    index, overflow = map(np.asarray, draw(np.concatenate(each, axis=1)))
    alone = jax.jit(lambda words: _positions(words, size, rate))
    pages = np.split(index, np.cumsum([whole, whole, part]))
    for words, own, limit in zip(each, pages, used, strict=True):
        expected = np.asarray(alone(words)[0])
        expected = np.where(expected < limit, expected, size)
        np.testing.assert_array_equal(own, np.append(expected, size))
    assert not overflow.any() and (pages[2] < size).sum() > 500


def test_rates_0_and_1():
    none = np.zeros((0, 11), np.uint32)
    index, overflow = _positions(none, 10, 0.0)
    assert (index == 10).all() and not overflow
    index, overflow = _positions(none, 10, 1.0)
    np.testing.assert_array_equal(index, np.arange(10))
    assert not overflow
    index, overflow = _positions(none[:, :1], 0, 0.5)
    assert index.shape == (0,) and not overflow


def test_a_rate_below_the_resolution_is_named():
    with pytest.raises(ValueError, match="1e-16 is below the resolution"):
        geometric.words_per_gap(100, 1e-16)
