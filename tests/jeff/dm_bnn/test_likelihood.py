import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jeff.dm_bnn import likelihood


def test_categorical_is_the_log_of_the_softmax():
    rng = np.random.default_rng(1)
    logits = jnp.asarray(rng.normal(0, 5, (6, 4)), jnp.float32)
    labels = jnp.array([0, 1, 2, 3, 0, 1])
    exact = np.exp(np.asarray(logits, np.float64))
    expected = np.log(exact / exact.sum(-1, keepdims=True))[np.arange(6), labels]
    np.testing.assert_allclose(
        likelihood.categorical(logits, labels), expected, rtol=1e-5, atol=1e-6
    )
    half = likelihood.categorical(logits.astype(jnp.bfloat16), labels)
    assert half.dtype == jnp.float32


def test_gaussian_is_the_density():
    outputs, targets = np.random.default_rng(1).normal(size=(2, 5, 3)).astype("f4")
    expected = stats.norm.logpdf(targets, outputs, 0.7).sum(-1)
    found = jax.jit(likelihood.gaussian(0.7))(outputs, targets)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    one = jax.eval_shape(likelihood.gaussian(0.7), outputs[:, 0], targets[:, 0])
    assert one.shape == (5,)


def test_errors_name_the_shape():
    with pytest.raises(ValueError, match=r"\(4, 3\).*\(5,\)"):
        likelihood.categorical(jnp.zeros((4, 3)), jnp.zeros(5, jnp.int32))
    with pytest.raises(ValueError, match=r"\(4, 1\), \(4,\)"):
        likelihood.gaussian(1.0)(jnp.zeros(4), jnp.zeros((4, 1)))
    with pytest.raises(ValueError, match="noise_std.*0"):
        likelihood.gaussian(0.0)
