"""Second moments of activations, and the factor of their inverse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import gptq_reference as ref
from support.case import normal

from jeff.mbq.gptq import hessian
from jeff.mbq.gptq.hessian import activation_hessian

inverse_factor = jax.jit(hessian.inverse_factor)


def test_sum_over_tokens():
    x = normal(0, 3, 5, 4) * 2
    flat = np.asarray(x).reshape(15, 4)
    got = activation_hessian(x)
    np.testing.assert_allclose(got.value, ref.hessian(flat), rtol=1e-5, atol=1e-6)
    assert got.count == 15


def test_batches_merge_to_the_whole():
    x = normal(1, 6, 5, 4)
    parts = [activation_hessian(x[:2]), activation_hessian(x[2:])]
    merged = parts[0].merge(parts[1])
    np.testing.assert_allclose(merged.value, activation_hessian(x).value, rtol=1e-5)


def test_integer_weights_count_a_token_that_often():
    x, times = normal(2, 2, 3, 4), np.array([[0, 1, 2], [3, 0, 1]])
    got = activation_hessian(x, jnp.asarray(times, jnp.float32)).total
    repeated = np.repeat(np.asarray(x).reshape(6, 4), times.ravel(), axis=0)
    np.testing.assert_allclose(got, 7 * ref.hessian(repeated), rtol=1e-5, atol=1e-6)


def test_batch_axes_are_apart():
    x, a = normal(3, 2, 5, 4), jnp.abs(normal(4, 2, 5))
    got = activation_hessian(x, a, batch_axes=1)
    assert got.total.shape == (2, 4, 4)
    for i in range(2):
        want = activation_hessian(x[i], a[i])
        np.testing.assert_allclose(got.total[i], want.total, rtol=1e-5, atol=1e-6)
        assert got.count == want.count


def test_bfloat16_is_accumulated_in_float32():
    x = normal(5, 400, 3).astype(jnp.bfloat16)
    got = activation_hessian(x).value
    assert got.dtype == jnp.float32
    want = ref.hessian(np.asarray(x.astype(jnp.float32)))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("x", "weights", "batch_axes", "message"),
    [
        (1.0, None, 0, "x must have an axis of channels after 0 batch axes"),
        (np.ones((2, 3)), None, 2, "after 2 batch axes, got shape"),
        (np.ones((2, 3)), np.ones(3), 0, r"shape of the tokens, \(2,\), got \(3,\)"),
    ],
)
def test_shapes_are_checked(x, weights, batch_axes, message):
    with pytest.raises(ValueError, match=message):
        activation_hessian(x, weights, batch_axes=batch_axes)


@pytest.mark.parametrize("k", [1, 33, 96])
def test_factor_of_the_inverse(k):
    """float32: the condition number is at most k / damping, 1e4 here."""
    h = ref.hessian(np.random.default_rng(k).standard_normal((k // 2 + 1, k)))
    got = np.asarray(inverse_factor(jnp.float32(h), 0.01))
    assert (np.tril(got, -1) == 0).all() and (np.diag(got) > 0).all()
    want = np.linalg.cholesky(np.linalg.inv(ref.damped(h))).T
    np.testing.assert_allclose(got, want, atol=2e-4 * np.abs(want).max())


def test_scale_of_the_hessian_scales_the_factor():
    h = jnp.float32(ref.hessian(np.asarray(normal(6, 40, 8))))
    one, other = inverse_factor(h, 0.1), inverse_factor(16 * h, 0.1)
    np.testing.assert_allclose(other, one / 4, rtol=1e-6)


def test_dead_channels_take_no_part():
    h = np.zeros((5, 5))
    live = [0, 2, 3]
    h[np.ix_(live, live)] = ref.hessian(np.asarray(normal(7, 9, 3)))
    got = np.asarray(inverse_factor(jnp.float32(h), 0.01))
    want = inverse_factor(jnp.float32(h[np.ix_(live, live)]), 0.01)
    np.testing.assert_allclose(got[np.ix_(live, live)], want, rtol=1e-6)
    off = got - np.diag(np.diag(got))
    assert (off[[1, 4]] == 0).all() and (off[:, [1, 4]] == 0).all()
    assert np.isfinite(np.asarray(inverse_factor(jnp.zeros((3, 3)), 0.0))).all()


def test_indefinite_is_nan():
    assert np.isnan(inverse_factor(jnp.array([[1.0, 2.0], [2.0, 1.0]]), 0.0)).any()
