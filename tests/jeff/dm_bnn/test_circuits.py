"""Voters drawn by the generators of circuits, `hwsim.rng`, in place of JAX's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hwsim.rng import Clt, Rlf, Wallace, clt, rlf, wallace
from jeff import dm_bnn

DRAWS = {
    "clt": clt.normal(Clt(terms=4, width=16, lanes=4)),
    "rlf": rlf.normal(Rlf(width=63, lanes=4)),
    "wallace": wallace.normal(Wallace(pool=64)),
}
K, N, T = 5, 40, 60
KEY = jax.random.key(2)


def product(w, x):
    return x @ w


@pytest.fixture(scope="module")
def posterior():
    rng = np.random.default_rng(3)
    mean, std = rng.normal(size=(K, N)), rng.uniform(0.5, 1.5, (K, N))
    return dm_bnn.MeanField(jnp.asarray(mean, "float32"), jnp.asarray(std, "float32"))


X = jnp.linspace(-1, 2, K)[None]


@pytest.fixture(scope="module", params=DRAWS)
def voters(request, posterior):
    """Voters of one product, each way, in tiles and chunks that do not fit evenly."""
    draw = DRAWS[request.param]

    @jax.jit
    def run(w, x):
        def predict(mode, **settings):
            return dm_bnn.predict(
                product, w, x, KEY, voters=T, mode=mode, draw=draw, **settings
            )[:, 0]

        return {
            "naive": predict("naive"),
            "dm": predict("dm", alpha=0.3, tile=7 * K),
            "chunked": predict("dm", chunk=7),
            "lrt": predict("lrt"),
        }

    return run(posterior, X)


def test_the_voters_are_the_same_whichever_way(voters):
    for name in ("dm", "chunked"):
        np.testing.assert_allclose(voters[name], voters["naive"], 1e-5, 1e-5)


@pytest.mark.parametrize("mode", ["naive", "lrt"])
def test_mean_and_variance_over_voters(voters, posterior, mode):
    mean, std = (np.float64(a) for a in (posterior.mean, posterior.std))
    x = np.float64(X)
    scores = (voters[mode] - x @ mean) / np.sqrt(np.square(x) @ np.square(std))
    # T N scores of mean 0 and variance 1, each a sum of independent numbers whose
    # kurtosis is at most a normal one's: standard errors of at most these.
    count = scores.size
    assert abs(scores.mean()) < 5 / count**0.5
    assert abs(np.square(scores).mean() - 1) < 5 * (2 / count) ** 0.5
    # Columns do not go together, nor do voters: correlations of mean 0 and variance
    # 1 / T and 1 / N, of which the mean square is 1 / T and 1 / N in turn.
    for rows in (scores, scores.T):
        length, pairs = len(rows), rows.shape[1] * (rows.shape[1] - 1) / 2
        found = np.corrcoef(rows.T)[np.triu_indices(rows.shape[1], 1)]
        assert np.abs(np.square(found).mean() * length - 1) < 6 * (2 / pairs) ** 0.5


def test_trees_and_whole_leaves_of_a_circuit(posterior):
    def program(p, x):
        return (x @ p["up"] + p["bias"]) @ p["down"]

    bias = dm_bnn.MeanField(jnp.zeros(N), jnp.ones(N))  # drawn whole
    random = {"up": posterior, "bias": bias, "down": posterior.transpose((1, 0))}

    @jax.jit
    def run(p, x):
        settings = {"voters": (2, 3), "draw": DRAWS["clt"]}
        return [
            dm_bnn.predict(program, p, x, KEY, mode=mode, **settings)
            for mode in ("naive", "dm")
        ]

    naive, dm = run(random, X)
    np.testing.assert_allclose(naive, dm, rtol=1e-5, atol=1e-5)
    assert len(np.unique(naive[:, 0, 0])) == 6
