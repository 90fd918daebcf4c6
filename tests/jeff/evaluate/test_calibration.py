"""Calibration errors against hand-worked numbers and a loop over the definition."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff.evaluate import ace, ece, reliability, reliability_figure, wilson


def two_classes(first):
    """Probabilities of two classes from that of the first."""
    first = np.asarray(first, np.float32)
    return jnp.asarray(np.stack([first, 1 - first], -1))


def by_loop(probs, labels, bins, mass):
    """The definition, in float64, one example after another."""
    probs, labels = np.asarray(probs, np.float64), np.asarray(labels)
    confidence = np.asarray(probs.max(-1), np.float32)
    right = probs.argmax(-1) == labels
    members = [[] for _ in range(bins)]
    for i, c in enumerate(confidence):
        if mass == "width":  # (b / bins, (b + 1) / bins], edges as float32
            where = sum(c > np.float32(b) / np.float32(bins) for b in range(1, bins))
        else:
            where = int((confidence < c).sum()) * bins // len(confidence)
        members[where].append(i)
    gaps = [len(m) * abs(right[m].mean() - confidence[m].mean()) for m in members if m]
    return sum(gaps) / len(labels), [len(m) for m in members]


@pytest.fixture(scope="module")
def guesses():
    """Probabilities of 200 examples, some tied, and labels that often differ."""
    rng = np.random.default_rng(3)
    logits = np.round(rng.normal(0, 2, (200, 4)), 1)
    probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    labels = np.where(rng.random(200) < 0.3, rng.integers(0, 4, 200), probs.argmax(-1))
    return jnp.asarray(probs, jnp.float32), jnp.asarray(labels, jnp.int32)


def test_hand_worked():
    """Bins of a fifth: (0.4, 0.6] holds 0.5 and 0.6, (0.8, 1] holds 0.9 and 1.

    Accuracies are 1/2 and 1, confidences 0.55 and 0.95: 2/4 * 0.05 + 2/4 * 0.05. In
    two bins of equal mass the same examples are together.
    """
    probs, labels = two_classes([0.5, 0.6, 0.9, 0.0]), jnp.array([0, 1, 0, 1])
    found = reliability(probs, labels, bins=5)
    assert found.count.tolist() == [0, 0, 2, 0, 2]
    assert found.correct.tolist() == [0, 0, 1, 0, 2]
    np.testing.assert_allclose(found.confidence, [0, 0, 0.55, 0, 0.95], rtol=1e-6)
    np.testing.assert_allclose(found.accuracy, [0, 0, 0.5, 0, 1])
    np.testing.assert_allclose(ece(probs, labels, bins=5), 0.05, rtol=1e-5)
    np.testing.assert_allclose(ece(probs, labels, bins=2, mass="equal"), 0.05, 1e-5)
    # One bin of all: |3/4 - 3/4|. Guo's error hides what cancels inside a bin.
    np.testing.assert_allclose(ece(probs, labels, bins=1), 0, atol=1e-7)


@pytest.mark.parametrize("mass", ["width", "equal"])
@pytest.mark.parametrize("bins", [7, 300])
def test_equals_the_definition(guesses, bins, mass):
    expected, counts = by_loop(*guesses, bins, mass)
    assert reliability(*guesses, bins=bins, mass=mass).count.tolist() == counts
    np.testing.assert_allclose(ece(*guesses, bins=bins, mass=mass), expected, 1e-5)


def test_bins_of_equal_mass_are_equal_without_ties():
    rng = np.random.default_rng(1)
    probs = two_classes(rng.permutation(np.linspace(0.51, 0.99, 103)))
    found = reliability(probs, jnp.zeros(103, jnp.int32), bins=10, mass="equal")
    assert sorted(found.count.tolist()) == [10] * 7 + [11] * 3
    assert (np.diff(found.confidence) > 0).all()


@pytest.mark.parametrize("mass", ["width", "equal"])
def test_the_order_of_examples_does_not_matter(guesses, mass):
    """Ties are many: probabilities come from rounded logits."""
    rows = np.random.default_rng(1).permutation(200)
    there = reliability(*guesses, bins=7, mass=mass)
    shuffled = (jnp.asarray(np.asarray(a)[rows]) for a in guesses)
    again = reliability(*shuffled, bins=7, mass=mass)
    chex.assert_trees_all_equal(there[:2], again[:2])


def test_ties_share_a_bin():
    probs = two_classes([0.75] * 9 + [1.0])
    found = reliability(probs, jnp.zeros(10, jnp.int32), bins=5, mass="equal")
    assert found.count.tolist() == [9, 0, 0, 0, 1]


def test_edges_belong_to_the_bin_below():
    """Float32 values of i / 10 are the float32 edges themselves."""
    probs = two_classes([0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    found = reliability(probs, jnp.zeros(6, jnp.int32), bins=10)
    assert found.count.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 1, 1]


def test_a_calibrated_forecast_has_only_the_error_of_a_finite_sample():
    """Labels are drawn from the probabilities, 0.5 to 1.

    The accuracy of a bin of n examples has a standard error of at most 0.5 / sqrt(n),
    and a mean absolute error of sqrt(2 / pi) times that: 0.035 for 2000 / 15 examples.
    The error of all is a mean over bins; the threshold is twice its bound. A forecast
    that says p^3 instead is far off.
    """
    rng = np.random.default_rng(1)
    first = rng.uniform(0.5, 1.0, 2000)
    labels = jnp.asarray(rng.random(2000) > first, jnp.int32)
    for mass in ("width", "equal"):
        assert ece(two_classes(first), labels, mass=mass) < 0.07
        assert ece(two_classes(first**3), labels, mass=mass) > 0.12


def test_ace_hand_worked_and_sees_classes_that_are_not_predicted():
    """Class 0 is at 0.6 always and right in 3 of 5; the others are swapped.

    Class 1 is given 0.4 and never happens, class 2 is given 0 and happens in 2 of 5:
    the mean of 0, 0.4 and 0.4. The predicted class alone has no error.
    """
    probs = jnp.asarray(np.tile(np.float32([0.6, 0.4, 0.0]), (5, 1)))
    labels = jnp.array([0, 0, 0, 2, 2])
    np.testing.assert_allclose(ece(probs, labels), 0, atol=1e-6)
    np.testing.assert_allclose(ace(probs, labels), 0.8 / 3, rtol=1e-6)


def test_ace_is_the_mean_over_classes_of_two_class_errors(guesses):
    """The error of each class alone, worked out by a loop."""
    probs, labels = (np.asarray(x) for x in guesses)
    gaps = []
    for k in range(4):
        p = probs[:, k]
        where = np.array([(p < c).sum() * 15 // 200 for c in p])
        for b in range(15):
            m = where == b
            gaps.append(abs((labels[m] == k).sum() - p[m].sum(dtype=np.float64)))
    np.testing.assert_allclose(ace(*guesses), sum(gaps) / 200 / 4, rtol=1e-5)


@pytest.mark.parametrize("mass", ["width", "equal"])
def test_jit_vmap_and_no_retrace(guesses, mass):
    probs, labels = (np.reshape(x, (4, 50, *x.shape[1:])) for x in guesses)
    chex.clear_trace_counter()
    counted = chex.assert_max_traces(lambda p, y: ece(p, y, mass=mass), n=1)
    traced = jax.jit(jax.vmap(counted))
    loop = [by_loop(p, y, 15, mass)[0] for p, y in zip(probs, labels, strict=True)]
    for _ in range(2):
        np.testing.assert_allclose(traced(probs, labels), loop, rtol=1e-5)
    assert traced(probs, labels).dtype == jnp.float32


@pytest.mark.parametrize("score", [ece, ace])
@pytest.mark.parametrize("bad", [jnp.nan, 3.0, -0.2])
def test_what_is_no_probability_gives_nan(score, bad):
    probs = np.array(two_classes([0.7, 0.9]))
    assert not np.isnan(score(jnp.asarray(probs), jnp.array([0, 1])))
    probs[0, 0] = bad
    assert np.isnan(score(jnp.asarray(probs), jnp.array([0, 1])))


def test_half_precision_is_accepted():
    probs = jnp.array([[0.75, 0.25], [0.25, 0.75]], jnp.bfloat16)
    np.testing.assert_allclose(ece(probs, jnp.array([0, 0])), 0.25)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"labels": jnp.zeros(3, jnp.int32)}, ValueError, r"\(2, 2\).*\(3,\)"),
        ({"labels": jnp.zeros(2)}, TypeError, "labels.*float32"),
        ({"probs": jnp.ones((2, 2), jnp.int32)}, TypeError, "probs.*int32"),
        ({"probs": jnp.ones((0, 2)), "labels": jnp.zeros(0, int)}, ValueError, "no ex"),
        ({"bins": 0}, ValueError, "bins.*0"),
        ({"bins": 1.5}, ValueError, "bins.*1.5"),
        ({"bins": 2**31}, ValueError, "2.31"),
        ({"mass": "height"}, ValueError, "mass.*height"),
    ],
)
def test_errors_name_the_value(changes, error, message):
    given = {"probs": two_classes([0.5, 0.5]), "labels": jnp.zeros(2, jnp.int32)}
    with pytest.raises(error, match=message):
        ece(**(given | changes))


def test_the_figure_shows_filled_bins_with_wilson_intervals(guesses):
    found = reliability(*guesses, bins=10)
    figure = reliability_figure(found, title="Calibration", name="net")
    diagonal, net = figure.series
    assert diagonal.x == diagonal.y == (0.0, 1.0)
    filled = np.flatnonzero(found.count)
    assert len(net.x) == len(filled) < 10
    first = wilson(int(found.correct[filled[0]]), int(found.count[filled[0]]))
    assert (net.y[0], net.low[0], net.high[0]) == first[:3]
    assert "200 examples" in figure.caption


def test_the_figure_of_nothing_is_refused():
    empty = jax.tree.map(
        jnp.zeros_like, reliability(two_classes([1.0]), jnp.zeros(1, int))
    )
    with pytest.raises(ValueError, match="no example"):
        reliability_figure(empty, title="t", name="n")
