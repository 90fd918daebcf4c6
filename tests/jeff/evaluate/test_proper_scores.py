import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff.evaluate import brier, nll
from jeff.evaluate.proper_scores import checked_probs

PROBS = jnp.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
LABELS = jnp.array([0, 1])


def test_hand_worked():
    """0.3^2 + 0.2^2 + 0.1^2 = 0.14 and 0.1^2 + 0.7^2 + 0.6^2 = 0.86."""
    np.testing.assert_allclose(brier(PROBS, LABELS), 0.5, rtol=1e-6)
    expected = -(np.log(0.7) + np.log(0.3)) / 2
    np.testing.assert_allclose(nll(PROBS, LABELS), expected, rtol=1e-6)


def test_ends_of_the_range():
    sure = jnp.eye(3)
    assert brier(sure, jnp.arange(3)) == 0 and nll(sure, jnp.arange(3)) == 0
    wrong = jnp.array([1, 2, 0])
    assert brier(sure, wrong) == 2 and nll(sure, wrong) == jnp.inf


@pytest.mark.parametrize("score", [brier, nll])
def test_the_truth_scores_best(score):
    """Proper: the expected score over labels drawn from q is smallest at p = q."""
    q = np.array([0.5, 0.3, 0.2])
    grid = [(a, b) for a in range(1, 10) for b in range(1, 10 - a)]
    forecasts = jnp.array([[a / 10, b / 10, 1 - (a + b) / 10] for a, b in grid])
    one = jax.vmap(lambda p, y: score(p[None], y[None]), in_axes=(None, 0))
    each = jax.vmap(one, in_axes=(0, None))(forecasts, jnp.arange(3))
    expected = np.asarray(each) @ q
    assert grid[int(expected.argmin())] == (5, 3)


@pytest.mark.parametrize("score", [brier, nll])
def test_jit_vmap_and_no_retrace(score):
    rng = np.random.default_rng(1)
    probs = jnp.asarray(rng.dirichlet(np.ones(4), (3, 5)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, 4, (3, 5)), jnp.int32)
    loop = [score(p, y) for p, y in zip(probs, labels, strict=True)]
    traced = jax.jit(jax.vmap(chex.assert_max_traces(score, n=1)))
    for _ in range(2):
        np.testing.assert_allclose(traced(probs, labels), loop, rtol=1e-6)
    # All leading axes are examples.
    np.testing.assert_allclose(score(probs, labels), np.mean(loop), rtol=1e-6)


@pytest.mark.parametrize("score", [brier, nll])
@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_that_is_no_class_gives_nan(score, label):
    assert np.isnan(score(PROBS, jnp.array([label, 1])))


@pytest.mark.parametrize("row", [[0.5, 0.6, 0.1], [1.2, -0.2, 0], [jnp.nan, 0.5, 0.5]])
def test_what_is_no_probability_gives_nan(row):
    probs = jnp.asarray(np.float32([row, PROBS[1]]))
    checked = np.asarray(jax.jit(checked_probs)(probs, LABELS))
    assert np.isnan(checked[0]).all()
    np.testing.assert_array_equal(checked[1], PROBS[1])


def test_a_sum_rounded_in_bfloat16_is_accepted():
    probs = np.random.default_rng(1).dirichlet(np.ones(1000), 50)
    probs = jnp.asarray(probs.astype(jnp.bfloat16))
    assert jnp.isfinite(nll(probs, jnp.zeros(50, jnp.int32)))


@pytest.mark.parametrize(
    ("probs", "labels", "error", "message"),
    [
        (jnp.ones((4, 3)), jnp.zeros(5, jnp.int32), ValueError, r"\(4, 3\).*\(5,\)"),
        (jnp.ones((0, 3)), jnp.zeros(0, jnp.int32), ValueError, r"\(0, 3\)"),
        (jnp.ones((4, 3)), jnp.zeros(4), TypeError, "labels.*float32"),
        (jnp.ones((4, 3), bool), jnp.zeros(4, jnp.int32), TypeError, "probs.*bool"),
    ],
)
def test_errors_name_the_value(probs, labels, error, message):
    for score in (brier, nll):
        with pytest.raises(error, match=message):
            score(probs, labels)
