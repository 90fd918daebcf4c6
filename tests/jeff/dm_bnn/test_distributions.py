"""Local reparameterisation and flipout against naive voters; trees against theory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jeff import dm_bnn

SIZES = (5, 6, 4, 3)
COUNT = 20_000
# Rows that naive voters answer alike: cosines of 0.58 to 0.94.
X = np.float32(np.linspace(-1, 1, SIZES[0]) + [[0], [0.5], [1]])


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
    """20,000 voters of a batch of three, by mode: ``[voters, rows and logits]``."""

    @jax.jit
    def run(key):
        return {
            mode: dm_bnn.predict(net, posterior, X, key, voters=COUNT, mode=mode)
            for mode in ("naive", "lrt", "flipout")
        }

    found = run(jax.random.key(0))
    return {mode: np.asarray(y).reshape(COUNT, -1) for mode, y in found.items()}


@pytest.mark.parametrize("mode", ["lrt", "flipout"])
def test_mean_variance_and_distribution_of_each_logit_of_each_row(voters, mode):
    naive, other = voters["naive"], voters[mode]
    assert naive.shape[1] == len(X) * SIZES[-1]
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


def product(w, x):
    return x @ w


@pytest.fixture(scope="module")
def products():
    """Voters of one product, by mode, less their mean, in standard deviations."""
    rng, outputs = np.random.default_rng(6), 2
    mean = rng.normal(size=(SIZES[0], outputs))
    std = rng.uniform(0.5, 1.5, (SIZES[0], outputs))
    w = dm_bnn.MeanField(jnp.asarray(mean, "float32"), jnp.asarray(std, "float32"))

    @jax.jit
    def run(key):
        return {
            mode: dm_bnn.predict(product, w, X, key, voters=COUNT, mode=mode)
            for mode in ("naive", "lrt", "flipout")
        }

    x, std = np.float64(X), np.float64(w.std)
    center, spread = x @ np.float64(w.mean), np.sqrt(x**2 @ std**2)
    shared = np.einsum("rk,sk,kn->rsn", x, x, std**2) / (spread[:, None] * spread)
    found = run(jax.random.key(3))
    scores = {mode: (np.float64(y) - center) / spread for mode, y in found.items()}
    return scores, shared


@pytest.mark.parametrize("mode", ["naive", "lrt", "flipout"])
def test_rows_have_noise_in_common_only_where_weights_are_drawn(products, mode):
    """Correlations of all outputs of all rows with one another.

    Naive voters answer all rows with one matrix: ``sum_k x_rk x_sk std_kn^2`` for rows
    r and s of output n. The signs of flipout and the draws of local reparameterisation
    leave nothing of it; outputs of different columns never have anything in common.
    """
    scores, shared = products
    z = scores[mode]
    pairs = z[:, :, None, :, None] * z[:, None, :, None, :]  # [T, r, s, n, m]
    wanted = np.zeros(pairs.shape[1:])
    for row in range(len(X)):
        wanted[row, row] = np.eye(z.shape[2])
    if mode == "naive":
        wanted = shared[..., None] * np.eye(z.shape[2])
        assert np.abs(wanted[0, 1, 0, 0]) > 0.5  # there is something to lose
    error = pairs.std(0) / COUNT**0.5
    assert (np.abs(pairs.mean(0) - wanted) < 5 * error).all()


PILOT, TREE, REPEATS = (400, 8, 8), (4, 3, 2), 3_000


@pytest.fixture(scope="module")
def trees(posterior):
    """Voters of one large tree, and means of small ones, for the first row."""
    x = X[:1]

    @jax.jit
    def pilot(key):
        return dm_bnn.predict(net, posterior, x, key, voters=PILOT, mode="naive")

    @jax.jit
    def means(keys):
        def one(key):
            y = dm_bnn.predict(net, posterior, x, key, voters=TREE, mode="dm")
            return y.mean(0)[0]

        return jax.lax.map(one, keys, batch_size=500)

    values = np.asarray(pilot(jax.random.key(1)))[:, 0]
    return values, np.asarray(means(jax.random.split(jax.random.key(2), REPEATS)))


@pytest.mark.parametrize("logit", range(SIZES[-1]))
def test_the_mean_over_a_tree_varies_as_the_nested_formula_says(trees, voters, logit):
    """Components from a large pilot predict how the means of small trees vary."""
    values, found = (a[:, logit] for a in trees)
    variances = dm_bnn.components(values, PILOT)
    measured = found.var(ddof=1)
    # The standard error of this ratio is about 3.5 %: 2.6 % for a variance of 3,000
    # means, and 7 % of a third for the pilot's first component (400 branches).
    assert abs(measured / dm_bnn.variance_of_mean(variances, TREE) - 1) < 0.1
    # A tree is worth as many voters as independent ones say, which no tree made: 1 % of
    # error from 20,000 voters beside the two above.
    worth = voters["naive"][:, logit].var(ddof=1) / measured
    assert abs(worth / dm_bnn.effective_voters(variances, TREE) - 1) < 0.15


def test_the_mean_over_trees_is_that_of_independent_voters(trees, voters):
    _, found = trees
    naive = voters["naive"][:, : SIZES[-1]]  # the first row's
    error = np.sqrt(found.var(0) / REPEATS + naive.var(0) / COUNT)
    assert (np.abs(found.mean(0) - naive.mean(0)) < 5 * error).all()
