import itertools

import jax
import numpy as np
import pytest

from jeff.evaluate import clopper_pearson
from jeff.sweep import best_proposal, draw_kinds, weighted_estimate

TARGET = np.array([0.5, 0.3, 0.2])
OTHER = np.array([0.2, 0.3, 0.5])
RATES = np.array([0.01, 0.1, 0.8])  # events by kind
TRUTH = float(TARGET @ RATES)


def variance(q):
    """Of one weighted outcome: sum q (p / q)^2 r - truth^2."""
    return float((TARGET**2 / q * RATES).sum() - TRUTH**2)


def test_estimate_and_variance_are_unbiased_over_all_outcomes():
    mean = square = estimated = 0.0
    trial = list(itertools.product(range(3), (0, 1)))
    for trials in itertools.product(trial, repeat=3):
        mass = 1.0
        for kind, event in trials:
            mass *= OTHER[kind] * (RATES[kind] if event else 1 - RATES[kind])
        kinds, events = np.array(trials).T
        found = weighted_estimate(events, kinds, target=TARGET, proposal=OTHER)
        mean += mass * found.mean.value
        square += mass * found.mean.value**2
        estimated += mass * found.variance
    assert mean == pytest.approx(TRUTH, rel=1e-12)
    assert square - mean**2 == pytest.approx(variance(OTHER) / 3, rel=1e-9)
    assert estimated == pytest.approx(variance(OTHER) / 3, rel=1e-9)


def test_no_proposal_beats_the_best():
    best = best_proposal(TARGET, RATES, defensive=0.0)
    expected = (TARGET @ np.sqrt(RATES)) ** 2 - TRUTH**2
    assert variance(best) == pytest.approx(expected, rel=1e-12)
    rng = np.random.default_rng(0)
    others = rng.dirichlet(np.ones(3), 200)
    assert all(variance(q) > variance(best) for q in others)
    assert variance(best) < variance(TARGET)
    # A tenth of the target keeps most of the gain and bounds every weight by 10.
    mixed = best_proposal(TARGET, [0.0, 0.0, 1.0])
    assert mixed.tolist() == pytest.approx([0.05, 0.03, 0.92])
    assert (TARGET / mixed).max() <= 10 + 1e-9


def test_by_hand():
    # Weights 2.5, 1, 0.4 for kinds 0, 1, 2.
    found = weighted_estimate([1, 0, 1], [2, 1, 0], target=TARGET, proposal=OTHER)
    assert found.mean.value == pytest.approx((0.4 + 0 + 2.5) / 3)
    assert found.effective_trials == pytest.approx(3.9**2 / (0.16 + 1 + 6.25))
    same = weighted_estimate([1, 0, 1], [2, 1, 0], target=TARGET, proposal=TARGET)
    assert same.mean.value == pytest.approx(2 / 3) and same.effective_trials == 3


def test_no_event_leaves_room_for_events():
    def found(trials, proposal):
        kinds, none = np.arange(trials) % 3, np.zeros(trials)
        return weighted_estimate(none, kinds, target=TARGET, proposal=proposal).mean

    plain, weighted = found(30, TARGET), found(30, OTHER)
    assert plain == pytest.approx(clopper_pearson(0, 30), rel=1e-9)
    # A higher mean would give no event with probability 0.025 at most: of all rates of
    # one mean, those are seen the least whose events are all of the heaviest kind.
    seen = OTHER[0] * weighted.high / TARGET[0]
    assert (1 - seen) ** 30 == pytest.approx(0.025, rel=1e-9)
    assert found(2, OTHER).high == 1


def test_draws_have_the_frequencies(key):
    count = 20_000
    q = np.array([0.0, 0.7, 1e-3, 0.299, 0.0])
    certain = [0.0, 1.0, 0.0]
    draw = jax.jit(lambda k: (draw_kinds(k, q, count), draw_kinds(k, certain, 50)))
    kinds, same = map(np.asarray, draw(key))
    assert kinds.dtype == np.int32 and (same == 1).all()
    counts = np.bincount(kinds, minlength=5)
    # 4 standard deviations of a binomial count, and never a kind of probability 0.
    assert (np.abs(counts - count * q) <= 4 * np.sqrt(count * q * (1 - q))).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"proposal": [1.0, 0.0, 0.0]}, r"proposal\[1\] is 0 but target\[1\] is 0.3"),
        ({"proposal": [0.5, 0.5]}, r"proposal must be \[3\]"),
        ({"target": [0.5, 0.3, 0.3]}, "target must sum to 1"),
        ({"kinds": [0, 3]}, r"kinds must be in \[0, 3\)"),
        ({"kinds": [0.0, 1.0]}, "kinds must be integers"),
        ({"kinds": [0, 1, 2]}, r"\[n\]"),
        ({"target": [1.0, 0, 0], "proposal": [1.0, 0, 0]}, "kind 1 was drawn"),
    ],
)
def test_errors_name_the_value(changes, message):
    given = {"outcomes": [0, 1], "kinds": [0, 1], "target": TARGET, "proposal": OTHER}
    given |= changes
    outcomes, kinds = given.pop("outcomes"), given.pop("kinds")
    with pytest.raises(ValueError, match=message):
        weighted_estimate(outcomes, kinds, **given)


def test_bad_moments_are_named():
    with pytest.raises(ValueError, match="moments are 0 wherever"):
        best_proposal([1.0, 0.0], [0.0, 1.0])
    with pytest.raises(ValueError, match="moments must be finite"):
        best_proposal([1.0, 0.0], [-1.0, 1.0])
    with pytest.raises(ValueError, match="defensive=2"):
        best_proposal([1.0, 0.0], [1.0, 1.0], defensive=2)
