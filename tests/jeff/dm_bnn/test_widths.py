import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff.dm_bnn import laplace_std, posterior, predict, relative_std


def test_relative_is_the_ratio_of_noise_to_signal(key):
    """Noise of a product over its signal, for weights drawn independently.

    500 outputs and 50 voters: a ratio of root mean squares is off by 1 / sqrt(2 * 500)
    or so, 3 %; four standard errors are 13 %.
    """
    rng = np.random.default_rng(1)
    w = rng.normal(0, 7, (64, 500)).astype("f4")
    x = rng.normal(size=(1, 64)).astype("f4")
    random = posterior({"w": jnp.asarray(w)}, relative_std({"w": w}, 0.2))
    voters = predict(
        lambda p, x: x @ p["w"], random, jnp.asarray(x), key, voters=50, mode="lrt"
    )
    noise, signal = np.asarray(voters).std(0), x @ w
    ratio = np.sqrt((noise**2).mean() / (signal**2).mean())
    assert abs(ratio / 0.2 - 1) < 0.13


def test_relative_in_half_precision_and_of_zeros():
    """Squares of 300 pass the range of float16."""
    std = relative_std({"h": jnp.full(9, 300.0, jnp.float16), "z": jnp.zeros(3)}, 0.1)
    assert std["h"].dtype == jnp.float16 and abs(std["h"] - 30) < 0.02
    assert std["z"] == 0
    assert relative_std({"n": jnp.arange(3)}, 0.1)["n"] == 0


def classifier(params, x):
    return jnp.tanh(x @ params["up"]) @ params["down"] + params["bias"]


@pytest.fixture(scope="module")
def trained():
    rng = np.random.default_rng(0)
    shapes = {"up": (3, 4), "down": (4, 3), "bias": (3,)}
    params = {
        n: jnp.asarray(rng.normal(size=s), jnp.float32) for n, s in shapes.items()
    }
    return params, jnp.asarray(rng.normal(size=(7, 3)), jnp.float32)


@pytest.fixture(scope="module")
def found(trained):
    return laplace_std(classifier, *trained, prior_std=2.0, chunk=3)


def test_laplace_is_the_diagonal_of_the_gauss_newton_matrix(trained, found):
    """``sum_x J^T (diag p - p p^T) J`` from the Jacobian of the logits, in float64."""
    params, x = trained
    jacobian = jax.jit(jax.jacrev(classifier))(params, x)
    p = np.asarray(jax.nn.softmax(classifier(params, x)), np.float64)
    inner = np.einsum("bc,cd->bcd", p, np.eye(3)) - np.einsum("bc,bd->bcd", p, p)
    for name, j in jacobian.items():
        j = np.asarray(j, np.float64).reshape(7, 3, -1)
        curvature = np.einsum("bci,bcd,bdi->i", j, inner, j)
        expected = (curvature + 0.25) ** -0.5
        np.testing.assert_allclose(found[name].reshape(-1), expected, rtol=1e-5)
        assert found[name].shape == params[name].shape


def test_laplace_of_more_data_is_narrower_and_the_prior_bounds_it(trained, found):
    many = laplace_std(classifier, *trained, prior_std=2.0, n_data=700, chunk=3)
    for name, std in found.items():
        # precision - 1/4 is proportional to the number of examples
        more = np.asarray(many[name], np.float64) ** -2 - 0.25
        less = np.asarray(std, np.float64) ** -2 - 0.25
        np.testing.assert_allclose(more, 100 * less, rtol=1e-3, atol=1e-4)
        assert (np.asarray(std) <= 2).all()


def test_laplace_gives_a_posterior_also_beside_integers(trained):
    params = {"up": trained[0]["up"], "step": jnp.int32(3)}
    std = laplace_std(lambda p, x: x @ p["up"], params, trained[1], prior_std=1.0)
    assert std["step"] == 0
    random = posterior(params, std)
    np.testing.assert_array_equal(random["up"].std, std["up"])
    assert random["step"] is params["step"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prior_std": 0.0}, "prior_std.*0"),
        ({"n_data": 0}, "n_data=0"),
        ({"chunk": 0}, "chunk=0"),
        ({"inputs": jnp.zeros((0, 3))}, r"\(0,\)"),
        ({"inputs": (jnp.zeros((2, 3)), jnp.zeros(3))}, r"\(2,\), \(3,\)"),
        ({"apply": lambda p, x: x[:, 0] * p["bias"][0]}, r"\(1,\)"),
    ],
)
def test_errors_name_the_value(trained, options, message):
    given = {"apply": classifier, "params": trained[0], "inputs": trained[1]}
    with pytest.raises(ValueError, match=message):
        laplace_std(**({"prior_std": 1.0} | given | options))


def test_ratio_is_checked():
    with pytest.raises(ValueError, match="ratio.*-0.1"):
        relative_std(jnp.ones(2), -0.1)
