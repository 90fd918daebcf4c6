"""Outcomes by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff.sweep import check_overflow, each_outcome, outcome

GOLDEN = np.array([[3, 1, 0], [3, 1, 0], [0, 3, 1], [0, 3, 1], [0, 0, 3]], np.float32)
LABELS = np.array([0, 0, 0, 0, 2])  # golden is right, right, wrong, wrong, right


ASSESS = jax.jit(lambda *a: each_outcome(*a[:3], overflow=a[3]))


def assessed(logits, overflow=False):
    return ASSESS(np.asarray(logits, np.float32), GOLDEN, LABELS, overflow)


def test_each_kind_by_hand():
    # The same; right to wrong; wrong to right; wrong to otherwise wrong; NaN.
    got = assessed([[3, 1, 0], [1, 3, 0], [9, 3, 1], [0, 0, 1], [0, np.nan, 9]])
    np.testing.assert_array_equal(got.correct, [1, 0, 1, 0, 0])
    np.testing.assert_array_equal(got.changed, [0, 1, 1, 1, 1])
    np.testing.assert_array_equal(got.critical, [0, 1, 0, 0, 1])
    np.testing.assert_array_equal(got.nonfinite, [0, 0, 0, 0, 1])
    e = np.exp
    drop = (e(3) - e(1)) / (e(3) + e(1) + 1)
    assert got.confidence_drop[0] == 0
    assert got.confidence_drop[1] == pytest.approx(drop, rel=1e-5)
    assert got.confidence_drop[4] == pytest.approx(e(3) / (e(3) + 2), rel=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_without_an_answer_it_is_changed_and_not_correct(bad):
    got = assessed(np.where(np.eye(5, 3), bad, GOLDEN))
    np.testing.assert_array_equal(got.nonfinite, [1, 1, 1, 0, 0])
    np.testing.assert_array_equal(got.changed, [1, 1, 1, 0, 0])
    np.testing.assert_array_equal(got.correct, [0, 0, 0, 0, 1])
    assert np.isfinite(got.confidence_drop).all()


def test_of_equal_logits_the_first_is_the_answer():
    got = assessed([[3, 3, 0], [0, 3, 3], [0, 3, 3], [3, 3, 3], [3, 3, 3]])
    np.testing.assert_array_equal(got.changed, [0, 1, 0, 1, 1])


def test_accuracy_lost_is_critical_less_repaired():
    rng = np.random.default_rng(0)
    for _ in range(5):
        logits = rng.standard_normal((5, 3)).astype(np.float32)
        got = assessed(logits)
        golden_right = (GOLDEN.argmax(-1) == LABELS).astype(int)
        repaired = (1 - golden_right) * np.asarray(got.correct)
        lost = golden_right.sum() - got.correct.sum()
        assert lost == got.critical.sum() - repaired.sum()


def test_sums_count_valid_images_only():
    logits = jnp.asarray(GOLDEN[::-1].copy(), jnp.bfloat16)
    valid = jnp.array([True, True, False, False, True])
    total = jax.jit(outcome)(logits, jnp.asarray(GOLDEN), jnp.asarray(LABELS), valid)
    assert [x.dtype for x in total] == [np.dtype("int32")] * 5 + [
        np.dtype("float32"),
        np.dtype("int32"),
    ]
    each = assessed(GOLDEN[::-1])
    assert total.images == 3
    assert total.changed == np.asarray(each.changed)[[0, 1, 4]].sum()
    assert total.confidence_drop == pytest.approx(
        float(np.asarray(each.confidence_drop)[[0, 1, 4]].sum()), rel=1e-6
    )


def test_missing_faults_are_counted_and_refused():
    total = assessed(GOLDEN, overflow=True)
    np.testing.assert_array_equal(total.overflow, np.ones(5))
    with pytest.raises(ValueError, match="5 of 5 trials drew more faults .*max_rate"):
        check_overflow(total)
    check_overflow(assessed(GOLDEN))


def test_errors_name_the_argument():
    with pytest.raises(TypeError, match="logits must be floating, got int32"):
        each_outcome(jnp.zeros((5, 3), jnp.int32), GOLDEN, LABELS)
    with pytest.raises(ValueError, match=r"golden must be \[batch, classes\]"):
        each_outcome(GOLDEN, GOLDEN[0], LABELS)
    with pytest.raises(ValueError, match=r"logits are \(4, 3\), golden ones \(5, 3\)"):
        each_outcome(GOLDEN[:4], GOLDEN, LABELS)
    with pytest.raises(ValueError, match=r"labels are \(4,\)"):
        each_outcome(GOLDEN, GOLDEN, LABELS[:4])
