"""Noise in programs of 16 bits, whose squares are too small for 16 bits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff import dm_bnn
from jeff.dm_bnn.flipout import flipped

KEY = jax.random.key(5)
K, N, T = 64, 32, 250
MODES = ("lrt", "flipout", "naive", "dm")
DTYPES = (jnp.float16, jnp.bfloat16)


def small(dtype):
    """A row of about 1e-3 and Gaussians of about 1e-4 around 0, as they are stored."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0.5e-3, 2e-3, (1, K)) * rng.choice([-1, 1], (1, K))
    w = dm_bnn.MeanField(jnp.zeros((K, N)), rng.uniform(0.5e-4, 2e-4, (K, N)))
    return jnp.asarray(x, dtype), jax.tree.map(lambda a: jnp.asarray(a, dtype), w)


def product(w, x):
    return x @ w


def exact(x, w):
    """Variance of every output by the formula, float64 ``[1, N]``."""
    return np.square(np.float64(x)) @ np.square(np.float64(w.std))


@pytest.fixture(scope="module", params=DTYPES, ids=lambda dtype: dtype.__name__)
def voters(request):
    """Voters by mode, with the input and the weight they are drawn from."""
    x, w = small(request.param)

    @jax.jit
    def run(x, w):
        settings = {"voters": T, "draw": dm_bnn.normal16}
        return {
            mode: dm_bnn.predict(product, w, x, KEY, mode=mode, **settings)
            for mode in MODES
        }

    return x, w, run(x, w)


@pytest.mark.parametrize("mode", MODES)
def test_outputs_vary_as_the_formula_says(voters, mode):
    x, w, found = voters
    y = found[mode]
    assert y.dtype == x.dtype
    scores = np.float64(y)[:, 0] / np.sqrt(exact(x, w))
    # All T N scores are normal of variance 1 and independent: their mean square has a
    # standard error of sqrt(2 / (T N)). Rounding adds a twelfth of a squared step of
    # float16 to a variance of 1e-14 K, 5e-4 of it, and next to nothing in bfloat16.
    error = 5 * (2 / scores.size) ** 0.5 + 5e-4
    assert abs(np.square(scores).mean() - 1) < error
    assert abs(scores.mean()) < 5 / scores.size**0.5


def test_naive_and_decomposed_voters_are_the_same(voters):
    x, w, found = voters
    # Each is rounded once: to the same number, or to one of two neighbours.
    step = jnp.finfo(x.dtype)
    naive, dm = np.float64(found["naive"]), np.float64(found["dm"])
    atol = float(step.smallest_subnormal)
    np.testing.assert_allclose(naive, dm, rtol=float(step.eps), atol=atol)


def ones(key, count):
    """Noise that says what it is multiplied with."""
    del key
    return jnp.ones(count, jnp.float32)


def convolved(w, x, **settings):
    return jax.lax.conv_general_dilated(x, w, (1, 1), "VALID", **settings)


def narrow(w, x):
    return convolved(w, x, preferred_element_type=x.dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("program", [product, convolved, narrow])
def test_spread_is_the_formula_to_one_rounding(dtype, program):
    x, w = small(dtype)
    spread = np.sqrt(exact(x, w))
    if program in (convolved, narrow):  # an image as large as the kernels
        x, w = x.reshape(1, 1, 8, 8), w.transpose((1, 0)).reshape((N, 1, 8, 8))
        spread = spread.reshape(1, N, 1, 1)

    @jax.jit
    def run(w, x):
        settings = {"mode": "lrt", "approximate": True, "draw": ones}
        return dm_bnn.predict(program, w, x, KEY, voters=1, **settings)[0]

    limits = jnp.finfo(dtype)
    # Half a step, and the roundings of float32.
    atol = 0.501 * float(limits.smallest_subnormal)
    rtol = 0.501 * float(limits.eps)
    np.testing.assert_allclose(np.float64(run(w, x)), spread, rtol, atol)


@pytest.mark.parametrize("mode", MODES)
def test_a_wide_product_of_narrow_operands_has_wide_noise(mode):
    x, w = small(jnp.bfloat16)
    x, w = x[:, :1], w.slice((0, 0), (1, N))  # so that signs are all that flipout adds

    def wide(w, x):
        return jnp.dot(x, w, preferred_element_type=jnp.float32)

    def thirds(key, count):
        return ones(key, count) / 3

    y = dm_bnn.predict(wide, w, x, KEY, voters=1, mode=mode, draw=thirds)[0]
    assert y.dtype == jnp.float32
    np.testing.assert_allclose(np.abs(y), np.sqrt(exact(x, w)) / 3, rtol=1e-6)


def test_in_float32_the_formulas_are_as_they_were():
    """Bit for bit, op by op."""
    x, w = small(jnp.float32)
    x, w = x[:, :5], w.slice((0, 0), (5, 3))
    w = dm_bnn.MeanField(w.mean + 0.1, w.std)

    def draw(key, count):
        return jax.random.normal(key, (count,))

    variance = jnp.square(x) @ jnp.square(w.std)
    noise = draw(dm_bnn.leaf_key(KEY, ""), 3).reshape(1, 3)
    wanted = x @ w.mean + jnp.sqrt(variance) * noise
    settings = {"voters": 1, "mode": "lrt", "draw": draw}
    got = dm_bnn.predict(product, w, x, KEY, **settings)[0]
    np.testing.assert_array_equal(got, wanted)
    signs = jnp.array([[1.0, -1, 1, 1, -1]]), jnp.array([[-1.0, 1, 1]])
    noise = draw(KEY, 15).reshape(5, 3)
    wanted = x @ w.mean + (x * signs[0]) @ (w.std * noise) * signs[1]
    np.testing.assert_array_equal(flipped(jnp.matmul, x, w, noise, *signs), wanted)
