"""The bound against an exact posterior, samplers that plug in, and errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff import base
from jeff.dm_bnn import MeanField, elbo, kl, likelihood, posterior, predict, to_free


def linear(params, x):
    return x @ params["w"] + params["b"]


def one_weight(apply, posterior, x, key, *, voters):
    """The slow, obvious sampler: one weight for the whole batch, drawn by hand."""

    def voter(key):
        w = posterior["w"]
        drawn = w.mean + w.std * jax.random.normal(key, w.shape)
        return apply(posterior | {"w": drawn}, x)

    return jax.vmap(voter)(jax.random.split(key, voters))


@pytest.fixture(scope="module")
def regression():
    """Linear regression: data, posterior, and the bound in closed form."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, 3))
    y = x @ np.array([[1.0], [-2.0], [0.5]]) + 0.5 * rng.normal(size=(12, 1))
    mean, std = np.array([[0.8], [-1.5], [0.1]]), np.array([[0.1], [0.4], [0.2]])
    # E (y - b - x w)^2 = (y - b - x mean)^2 + x^2 std^2
    square = (y - 0.3 - x @ mean) ** 2 + x**2 @ std**2
    expected = (-square / (2 * 0.25) - np.log(2 * np.pi * 0.25) / 2).sum()
    arrays = (jnp.asarray(a, jnp.float32) for a in (x, y, mean, std))
    x, y, mean, std = arrays
    random = {"w": MeanField(mean, std), "b": jnp.float32(0.3)}
    return (x, y), random, expected


SAMPLERS = {
    "default": None,
    "by hand": one_weight,
    "naive": functools.partial(predict, mode="naive"),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_estimates_the_bound_without_bias(regression, key, name):
    """Mean of 4,000 voters within four of its standard errors of the closed form.

    Each voter's sum over the data is at most one draw of the worst case, all examples
    with the same weight, so the by-hand sampler's spread bounds the others.
    """
    data, random, expected = regression
    run = functools.partial(
        elbo, linear, log_likelihood=likelihood.gaussian(0.5), prior_std=0.5
    )
    found = jax.jit(
        lambda p, key: run(p, data, 12, key, sampler=SAMPLERS[name], voters=4000)
    )(random, key)
    x, y = (np.asarray(a, np.float64) for a in data)
    w = random["w"]
    draws = np.asarray(w.mean) + np.asarray(w.std) * np.random.default_rng(1).normal(
        size=(4000, 3, 1)
    )
    sums = -((y - 0.3 - x @ draws) ** 2 / (2 * 0.25)).sum((1, 2))
    error = 4 * sums.std() / np.sqrt(4000)
    assert abs(float(found.log_likelihood) - expected) < error < abs(expected) / 20
    divergence = kl(random, prior_std=0.5)
    np.testing.assert_allclose(found.kl, divergence, rtol=1e-6)
    np.testing.assert_allclose(found.value, found.log_likelihood - found.kl, rtol=1e-6)


def test_batches_are_scaled_to_all_data_and_the_divergence_is_weighted(regression, key):
    (x, y), random, _ = regression
    still = random | {"w": MeanField(random["w"].mean, jnp.full((3, 1), 1e-12))}
    bound = functools.partial(elbo, linear, log_likelihood=likelihood.gaussian(0.5))

    def parts(p):
        halves = [bound(p, (x[i : i + 6], y[i : i + 6]), 12, key) for i in (0, 6)]
        return halves, bound(p, (x, y), 12, key, kl_weight=0.25)

    halves, whole = jax.jit(parts)(still)
    mean = sum(float(h.log_likelihood) for h in halves) / 2
    np.testing.assert_allclose(whole.log_likelihood, mean, rtol=1e-5)
    expected = whole.log_likelihood - 0.25 * whole.kl
    np.testing.assert_allclose(whole.value, expected, rtol=1e-6)


def test_free_parameters_and_their_gradient(regression, key):
    """The derivative with respect to the means, from the closed form."""
    data, random, _ = regression
    x, y = (np.asarray(a, np.float64) for a in data)

    def value(free):
        return elbo(
            linear,
            free,
            data,
            12,
            key,
            log_likelihood=likelihood.gaussian(0.5),
            voters=2000,
            kl_weight=0.0,
        ).log_likelihood

    free = to_free(random)
    gradient = jax.jit(jax.grad(value))(free)
    off = y - 0.3 - x @ np.asarray(random["w"].mean)
    # d/dmean = x^T E(y - b - x w) / 0.25, and d/db likewise; noise of 2,000 voters:
    # std 0.4 times sums of 12 to 20, over sqrt(2000), four times.
    np.testing.assert_allclose(gradient["w"].mean, x.T @ off / 0.25, atol=2.5)
    np.testing.assert_allclose(gradient["b"], off.sum() / 0.25, atol=2.5)
    # d/drho = -std x^2 / 0.25 * sigmoid(rho), sigmoid(rho) = 1 - exp(-std)
    std = np.asarray(random["w"].std, np.float64)
    slope = -(x**2).sum(0)[:, None] * std / 0.25 * (1 - np.exp(-std))
    np.testing.assert_allclose(gradient["w"].rho, slope, rtol=0.2)


def test_local_draws_make_a_quieter_gradient(regression, key):
    """Kingma et al., section 2.2: draws of examples are independent of each other."""
    (x, y), random, _ = regression
    x, y = jnp.tile(x, (8, 1)), jnp.tile(y, (8, 1))

    def gradient(sampler, key):
        def value(mean):
            p = random | {"w": MeanField(mean, random["w"].std)}
            like = likelihood.gaussian(0.5)
            return elbo(
                linear, p, (x, y), 96, key, log_likelihood=like, sampler=sampler
            ).value

        return jax.grad(value)(random["w"].mean)

    keys = jax.random.split(key, 200)
    run = jax.jit(
        lambda keys: [
            jax.vmap(functools.partial(gradient, s))(keys).var(0).sum()
            for s in (None, one_weight)
        ]
    )
    local, shared = run(keys)
    assert local < shared / 4


def test_without_random_weights_nothing_is_drawn(regression, key):
    (x, y), random, _ = regression
    params = base.decoded(random)

    def never(*args, **kwargs):
        raise AssertionError("called")

    like = likelihood.gaussian(0.5)
    found = elbo(linear, params, (x, y), 12, key, log_likelihood=like, sampler=never)
    expected = np.asarray(like(linear(params, x), y)).sum()
    np.testing.assert_allclose(found.value, expected, rtol=1e-6)
    assert found.kl == 0


def test_errors_name_the_value(regression, key):
    data, random, _ = regression
    run = functools.partial(elbo, linear, random, data)
    with pytest.raises(ValueError, match="n_data=0"):
        run(0, key)
    with pytest.raises(ValueError, match="voters=0"):
        run(12, key, voters=0)
    with pytest.raises(ValueError, match=r"labels.*\(12, 1\)"):
        run(12, key)  # a classifier's likelihood of real targets
    with pytest.raises(ValueError, match=r"one number an example, 12.*\(12, 1\)"):
        run(12, key, log_likelihood=lambda out, y: out - y)
    with pytest.raises(ValueError, match=r"\(12, 1\) for 3 voters"):
        run(12, key, voters=3, sampler=lambda *a, **k: data[1])


def test_weights_of_a_convolution_need_another_sampler(key):
    """One kernel at all positions: local reparameterisation would be wrong there."""
    image = jnp.ones((2, 5, 5, 1))

    def apply(p, x):
        y = jax.lax.conv_general_dilated(
            x, p["w"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return y.mean((1, 2))

    random = posterior({"w": jnp.ones((3, 3, 1, 4))}, 0.1)
    batch = image, jnp.zeros(2, jnp.int32)
    run = functools.partial(elbo, apply, random, batch, 2)
    with pytest.raises(ValueError, match="convolution"):
        jax.eval_shape(run, key)
    exact = functools.partial(predict, mode="naive")
    assert jax.eval_shape(functools.partial(run, sampler=exact), key).value.shape == ()
