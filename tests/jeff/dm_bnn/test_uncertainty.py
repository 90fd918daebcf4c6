import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff.dm_bnn import predictive


def in_float64(logits):
    """The definitions, as differences of entropies."""
    x = np.asarray(logits, np.float64)
    p = np.exp(x - x.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)

    def entropy(q):
        return -np.sum(np.where(q > 0, q * np.log(np.where(q > 0, q, 1)), 0), -1)

    mean = p.mean(0)
    expected = entropy(p).mean(0)
    return mean, entropy(mean), expected, entropy(mean) - expected, p.var(0)


def drawn(scale, *shape):
    rng = np.random.default_rng(1)
    return jnp.asarray(scale * rng.normal(size=shape), jnp.float32)


def test_equals_the_definitions():
    logits = drawn(3, 20, 2, 3, 5)
    for found, wanted in zip(predictive(logits), in_float64(logits), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=1e-7)
        assert found.dtype == jnp.float32


def test_hand_worked():
    """Voters say (3/4, 1/4) and (1/4, 3/4): mean 1/2, so ln 2 in all.

    Each has H = 2 ln 2 - 3/4 ln 3; the difference is 3/4 ln 3 - ln 2, and the variance
    (1/4)^2.
    """
    found = predictive(jnp.log(jnp.array([[3.0, 1.0], [1.0, 3.0]])))
    ln2, ln3 = np.log(2), np.log(3)
    np.testing.assert_allclose(found.probs, 0.5, rtol=1e-6)
    np.testing.assert_allclose(found.entropy, ln2, rtol=1e-6)
    np.testing.assert_allclose(found.expected_entropy, 2 * ln2 - 0.75 * ln3, rtol=1e-6)
    np.testing.assert_allclose(found.mutual_information, 0.75 * ln3 - ln2, rtol=1e-6)
    np.testing.assert_allclose(found.variance, 1 / 16, rtol=1e-6)


def test_small_disagreement_is_not_lost_to_rounding():
    """The information is about half the mean squared distance, 1e-8 here.

    Differences of entropies in float32 are off by 1e-7.
    """
    logits = drawn(3e-4, 20, 2, 3, 5)
    found, exact = predictive(logits).mutual_information, in_float64(logits)[3]
    assert (exact > 1e-9).all() and (exact < 1e-7).all()
    np.testing.assert_allclose(found, exact, rtol=1e-3)


def test_information_is_between_zero_and_the_logarithm_of_the_classes():
    logits = drawn(30, 20, 200, 7)
    found = [np.asarray(field) for field in predictive(logits)]
    assert (found[3] >= 0).all() and (found[1] <= np.log(7) + 1e-6).all()
    one = predictive(logits[:1])
    assert not np.any(one.mutual_information) and not np.any(one.variance)


@pytest.mark.parametrize("scale", [1e4, 1e30])
def test_certainty_is_finite(scale):
    found = predictive(scale * jnp.array([[[1.0, 0.0, -1.0]], [[-1.0, 0.0, 1.0]]]))
    np.testing.assert_allclose(found.mutual_information, np.log(2), rtol=1e-6)
    np.testing.assert_allclose(found.expected_entropy, 0, atol=1e-12)


def test_a_class_without_chance_counts_nothing_and_nan_stays():
    masked = jnp.array([[[2.0, 0.0, -jnp.inf]], [[0.0, 2.0, -jnp.inf]]])
    plain = predictive(masked[..., :2])
    for found, wanted in zip(predictive(masked)[1:4], plain[1:4], strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
    broken = predictive(masked.at[0, 0, 0].set(jnp.nan))
    assert all(np.isnan(field).any() for field in broken)


def test_gradients_are_finite():
    logits = jnp.array([[[300.0, 0.0]], [[-300.0, 0.0]]])
    total = jax.jit(jax.grad(lambda x: sum(f.sum() for f in predictive(x))))(logits)
    assert np.isfinite(total).all()


def test_jit_vmap_and_no_retrace():
    logits = drawn(1, 3, 8, 2, 4)
    traced = jax.jit(jax.vmap(chex.assert_max_traces(predictive, n=1)))
    for _ in range(2):
        found = [np.asarray(field) for field in traced(logits)]
    for i, x in enumerate(np.asarray(logits)):
        wanted = in_float64(x)
        for field, value in zip(found, wanted, strict=True):
            np.testing.assert_allclose(field[i], value, rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("shape", "dtype", "error", "message"),
    [
        ((0, 3, 2), jnp.float32, ValueError, r"\(0, 3, 2\)"),
        ((3, 2, 0), jnp.float32, ValueError, r"\(3, 2, 0\)"),
        ((3,), jnp.float32, ValueError, r"\(3,\)"),
        ((3, 2), jnp.int32, TypeError, "int32"),
    ],
)
def test_errors_name_the_value(shape, dtype, error, message):
    with pytest.raises(error, match=message):
        predictive(jnp.zeros(shape, dtype))
