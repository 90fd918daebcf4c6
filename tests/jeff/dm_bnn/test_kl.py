"""The divergence against quadrature, another program's numbers, and hand work."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff.dm_bnn import MeanField, gaussian_kl, kl, posterior


@pytest.mark.parametrize(
    ("mean", "std", "prior_mean", "prior_std"),
    [
        (0.0, 1.0, 0.0, 1.0),
        (0.3, 0.05, 0.0, 1.0),
        (-2.0, 0.7, 0.1, 0.3),
        (1.0, 3.0, -1.0, 0.5),
        (0.01, 1e-3, 0.0, 0.1),
    ],
)
def test_equals_quadrature(mean, std, prior_mean, prior_std):
    """Gauss-Hermite of 64 nodes is exact for the integrand, a polynomial."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(64)
    w = mean + std * nodes
    log_q = -np.log(std) - nodes**2 / 2
    log_p = -np.log(prior_std) - ((w - prior_mean) / prior_std) ** 2 / 2
    expected = weights @ (log_q - log_p) / weights.sum()
    found = gaussian_kl(jnp.float32(mean), jnp.float32(std), prior_mean, prior_std)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-7)


def test_hand_worked():
    """ln 2 + (1/4 + 1) / 2 - 1/2 for N(1, 1/4) against N(0, 1); 3 such weights."""
    one = np.log(2) + 0.125
    weight = MeanField(jnp.ones(3), jnp.full(3, 0.5))
    np.testing.assert_allclose(kl({"w": weight, "b": jnp.ones(7)}), 3 * one, rtol=1e-6)
    assert kl({"b": jnp.ones(7)}) == 0


def test_per_element_formula_of_another_program(golden):
    """bayesian-torch 0.5.0, with two quirks undone.

    It takes the mean over a layer's weights plus the mean over its biases, where the
    divergence is a sum, and takes what it calls a prior variance, 0.7, as a standard
    deviation.
    """
    z = np.load(golden("bayesian_torch.npz"))
    std, mean = float(z["prior_sigma_as_used"]), float(z["prior_mean"])
    total, expected = 0.0, 0.0
    leaves = {}
    for i, (layer, kind) in enumerate(
        [("conv", "kernel"), ("fc1", "weight"), ("fc2", "weight")]
    ):
        means = []
        for part in (kind, "bias"):
            mu, sigma = z[f"{layer}_mu_{part}"], z[f"{layer}_sigma_{part}"]
            each = np.asarray(gaussian_kl(mu, sigma, mean, std), np.float64)
            means.append(each.mean())
            leaves[f"{layer}.{part}"] = MeanField(jnp.asarray(mu), jnp.asarray(sigma))
            expected += each.sum()
        np.testing.assert_allclose(sum(means), z["kl_per_layer"][i], rtol=1e-5)
        total += sum(means)
    found = kl(leaves, prior_mean=mean, prior_std=std)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found > 50 * total  # the sum over 838 weights, not the means of 6 arrays


def test_it_is_least_at_the_prior_and_convex_around_it(key):
    """Zero with zero slope there; positive anywhere else."""

    def of(mean, std):
        return gaussian_kl(mean, std, 0.5, 2.0)

    slopes = jax.grad(of, argnums=(0, 1))(jnp.float32(0.5), jnp.float32(2.0))
    np.testing.assert_allclose(slopes, 0, atol=1e-7)
    draws = np.asarray(jax.random.normal(key, (2, 100)))
    assert (of(draws[0], np.exp(draws[1])) > 0).all()


def test_a_tree_of_priors(key):
    w = jax.random.normal(key, (4, 3))
    random = posterior({"a": w, "b": w[0], "c": w[1]}, 0.5, where=lambda n, _: n != "c")
    prior = {"a": w, "b": 0.0, "c": 0.0}
    found = kl(
        random, prior_mean=prior, prior_std={"a": 0.5, "b": jnp.ones(3), "c": 9.0}
    )
    expected = np.sum(gaussian_kl(random["b"].mean, random["b"].std))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    # One array for all weights is a number that may be traced.
    traced = jax.jit(lambda s: kl(random, prior_std=s))(jnp.float32(0.7))
    np.testing.assert_allclose(traced, kl(random, prior_std=0.7), rtol=1e-6)


def test_no_variance_is_infinite_and_half_precision_is_summed_wide():
    assert kl(MeanField(jnp.zeros(2), jnp.zeros(2))) == jnp.inf
    many = MeanField(jnp.zeros(4000, jnp.bfloat16), jnp.full(4000, 0.5, jnp.bfloat16))
    found = kl(many)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, 4000 * (np.log(2) - 0.375), rtol=1e-5)


def test_jit_and_no_retrace(key):
    random = posterior({"w": jax.random.normal(key, (5, 2))}, 0.1)
    traced = jax.jit(chex.assert_max_traces(kl, n=1))
    for _ in range(2):
        np.testing.assert_allclose(traced(random), kl(random), rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prior_std": 0.0}, "prior_std.*0.0"),
        ({"prior_std": -1.0}, "prior_std.*-1.0"),
        ({"prior_mean": float("nan")}, "prior_mean.*nan"),
        ({"prior_mean": {"v": 0.0}}, r"prior_mean.*\['v', 'w'\]"),
    ],
)
def test_errors_name_the_value(options, message):
    with pytest.raises(ValueError, match=message):
        kl({"w": MeanField(jnp.zeros(1), jnp.ones(1))}, **options)
