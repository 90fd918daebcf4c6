"""Local reparameterisation and flipout against naive voters; trees against theory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jeff import dm_bnn

SIZES = (5, 6, 4, 3)
COUNT = 20_000


def net(p, x):
    for i, w in enumerate(p):
        x = x @ w
        x = jnp.tanh(x) if i < len(p) - 1 else x
    return x


@pytest.fixture(scope="module")
def posterior():
    rng = np.random.default_rng(5)
    params = [
        jnp.asarray(rng.normal(size=s) / np.sqrt(s[0]), jnp.float32)
        for s in zip(SIZES, SIZES[1:], strict=False)
    ]
    return dm_bnn.posterior(params, 0.3)


@pytest.fixture(scope="module")
def voters(posterior):
    """20,000 voters of one input, by mode."""
    x = jnp.linspace(-1, 1, SIZES[0])[None]

    @jax.jit
    def run(key):
        return {
            mode: dm_bnn.predict(net, posterior, x, key, voters=COUNT, mode=mode)
            for mode in ("naive", "lrt", "flipout")
        }

    return {k: np.asarray(v)[:, 0] for k, v in run(jax.random.key(0)).items()}


@pytest.mark.parametrize("mode", ["lrt", "flipout"])
def test_mean_variance_and_distribution_of_each_logit(voters, mode):
    naive, other = voters["naive"], voters[mode]
    alpha = 1e-6 / naive.shape[1]  # one false alarm in a million runs, all logits
    z = stats.norm.isf(alpha / 2)
    spread = np.sqrt((naive.var(0) + other.var(0)) / COUNT)
    assert (np.abs(naive.mean(0) - other.mean(0)) < z * spread).all()
    # var of a sample variance: (mu_4 - sigma^4) / n
    errors = [
        (((a - a.mean(0)) ** 4).mean(0) - a.var(0) ** 2) / COUNT for a in (naive, other)
    ]
    assert (np.abs(naive.var(0) - other.var(0)) < z * np.sqrt(sum(errors))).all()
    for a, b in zip(naive.T, other.T, strict=True):
        assert stats.ks_2samp(a, b).pvalue > alpha


def test_the_mean_over_a_tree_varies_as_the_nested_formula_says(posterior):
    """Components from a large pilot predict how the means of small trees vary."""
    x = jnp.linspace(-1, 1, SIZES[0])[None]
    tree, repeats = (4, 3, 2), 3_000

    @jax.jit
    def pilot(key):
        return dm_bnn.predict(net, posterior, x, key, voters=(400, 8, 8), mode="naive")

    @jax.jit
    def means(keys):
        def one(key):
            y = dm_bnn.predict(net, posterior, x, key, voters=tree, mode="naive")
            return y.mean(0)[0]

        return jax.lax.map(one, keys, batch_size=500)

    values = np.asarray(pilot(jax.random.key(1)))[:, 0]
    found = means(jax.random.split(jax.random.key(2), repeats))
    for logit in range(SIZES[-1]):
        variances = dm_bnn.components(values[:, logit], (400, 8, 8))
        wanted = dm_bnn.variance_of_mean(variances, tree)
        measured = np.asarray(found)[:, logit].var(ddof=1)
        # The standard error of this ratio is about 3.5 %: 2.6 % for a variance of 3,000
        # means, and 7 % of a third for the pilot's first component (400 branches).
        assert abs(measured / wanted - 1) < 0.1
        single = sum(variances)
        assert dm_bnn.effective_voters(variances, tree) == pytest.approx(
            single / wanted
        )
    # Unbiased: the mean over trees is that of the pilot, at 5 standard errors.
    error = np.sqrt(
        np.asarray(found).var(0) / repeats
        + [
            dm_bnn.variance_of_mean(dm_bnn.components(v, (400, 8, 8)), (400, 8, 8))
            for v in values.T
        ]
    )
    assert (np.abs(np.asarray(found).mean(0) - values.mean(0)) < 5 * error).all()
