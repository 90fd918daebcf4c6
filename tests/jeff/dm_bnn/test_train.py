"""Training against a posterior that is known, and what it promises beside it."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jeff.dm_bnn import FitSettings, MeanField, fit, likelihood, posterior


def linear(params, x):
    return x @ params["w"]


@pytest.fixture(scope="module")
def problem():
    """Regression with orthogonal inputs: its posterior is a product of Gaussians.

    With ``x^T x = 32 I``, noise 0.5 and prior N(0, 0.5^2) the precision of each weight
    is ``32 / 0.25 + 4 = 132``, and the mean ``x^T y / 0.25 / 132``.
    """
    rng = np.random.default_rng(2)
    x = np.linalg.qr(rng.normal(size=(32, 4)))[0] * np.sqrt(32)
    y = x @ np.array([[1.0], [-0.5], [0.0], [2.0]]) + 0.5 * rng.normal(size=(32, 1))
    data = jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)
    return data, x.T @ y / 0.25 / 132, 132**-0.5


@pytest.fixture(scope="module")
def run(problem):
    """One compiled training: the weight of the divergence and the key are traced."""
    data, _, _ = problem
    start = {"w": MeanField(jnp.zeros((4, 1)), jnp.full((4, 1), 0.3))}

    @jax.jit
    @functools.partial(chex.assert_max_traces, n=1)
    def train(key, weight):
        return fit(
            linear,
            start,
            data,
            key,
            FitSettings(epochs=150, batch=16, voters=4, kl_weight=lambda _: weight),
            optimizer=optax.adam(optax.cosine_decay_schedule(0.1, 300)),
            log_likelihood=likelihood.gaussian(0.5),
            prior_std=0.5,
        )

    return train


def test_finds_the_exact_posterior(problem, run, key):
    """The family contains it, so the bound's maximum is the posterior itself."""
    _, mean, std = problem
    found, history = run(key, 1.0)
    # Steps end at a rate of 0; their noise leaves a fraction of the width.
    np.testing.assert_allclose(found["w"].mean, mean, atol=std / 3)
    np.testing.assert_allclose(found["w"].std, std, rtol=0.1)
    assert [field.shape for field in history] == [(150,)] * 4
    assert history.elbo[-1] > history.elbo[0] and (history.kl_weight == 1).all()
    each = history.log_likelihood - history.kl / 32
    np.testing.assert_allclose(history.elbo, each, rtol=1e-5, atol=1e-5)


def test_tempering_narrows_the_posterior(problem, run, key):
    """Weight 1/4: the likelihood counts four times against the prior."""
    found, _ = run(key, 0.25)
    np.testing.assert_allclose(found["w"].std, (4 * 128 + 4) ** -0.5, rtol=0.1)


def test_same_key_same_posterior(run, key):
    first, again, other = (run(k, 1.0)[0] for k in (key, key, jax.random.key(1)))
    chex.assert_trees_all_equal(first, again)
    assert (first["w"].mean != other["w"].mean).any()


def test_annealing_is_a_function_of_the_step(problem, key):
    """40 examples in batches of 16: two steps a pass, the rest is not used in it."""
    data = tuple(jnp.concatenate([a, a[:8]]) for a in problem[0])
    start = {"w": MeanField(jnp.zeros((4, 1)), jnp.full((4, 1), 0.3))}
    settings = FitSettings(
        epochs=4, batch=16, kl_weight=optax.linear_schedule(0.0, 1.0, 4)
    )
    found, history = fit(
        linear,
        start,
        data,
        key,
        settings,
        log_likelihood=likelihood.gaussian(0.5),
        where=lambda name, leaf: name.endswith("rho"),
    )
    np.testing.assert_allclose(history.kl_weight, [0.125, 0.625, 1, 1])
    # Only the widths were trained.
    np.testing.assert_array_equal(found["w"].mean, 0)
    assert (found["w"].std != 0.3).all()


def test_a_deterministic_twin_and_leaves_that_are_not_trained(problem, key):
    """Maximum likelihood by the same steps; integers stay as they are."""
    data, _, _ = problem
    start = {"w": jnp.zeros((4, 1)), "step": jnp.int32(7)}
    found, history = fit(
        linear,
        start,
        data,
        key,
        FitSettings(epochs=400, batch=32),
        optimizer=optax.adam(optax.cosine_decay_schedule(0.1, 400)),
        log_likelihood=likelihood.gaussian(0.5),
    )
    x, y = (np.asarray(a, np.float64) for a in data)
    np.testing.assert_allclose(found["w"], x.T @ y / 32, atol=1e-3)
    assert found["step"] == 7 and found["step"].dtype == jnp.int32
    assert (history.kl == 0).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs.*0"),
        ({"batch": 1.5}, "batch.*1.5"),
        ({"voters": True}, "voters.*True"),
        ({"kl_weight": -1.0}, "kl_weight.*-1.0"),
        ({"kl_weight": float("nan")}, "kl_weight.*nan"),
    ],
)
def test_settings_are_checked(changes, message):
    with pytest.raises(ValueError, match=message):
        FitSettings(**changes)


def test_errors_come_before_training(key):
    random = posterior({"w": jnp.zeros((4, 1))}, 0.1)
    x, y = jnp.zeros((10, 4)), jnp.zeros((10, 1))
    with pytest.raises(ValueError, match="batch.*10.*128"):
        fit(linear, random, (x, y), key, FitSettings())
    with pytest.raises(ValueError, match=r"one length.*\(10, 4\), \(9, 1\)"):
        fit(linear, random, (x, y[:9]), key, FitSettings())
    with pytest.raises(ValueError, match="no leaf"):
        fit(linear, random, (x, y), key, FitSettings(batch=5), where=lambda *_: False)
