import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff.dm_bnn import Free, MeanField, from_free, to_free


def test_there_and_back_over_the_whole_range():
    """``|rho|`` roundings of 6e-8 each, and one of the softplus."""
    std = np.logspace(-36, 4, 161).astype(np.float32)
    free = to_free(MeanField(jnp.zeros(161), jnp.asarray(std)))
    back = from_free(free)
    np.testing.assert_array_equal(back.mean, 0)
    off = np.abs(np.asarray(back.std, np.float64) / std - 1)
    assert (off <= (np.abs(np.asarray(free.rho)) + 3) * 6e-8).all()


def test_rho_is_the_inverse_softplus():
    """In float64: ln(exp(s) - 1)."""
    std = np.array([1e-3, 0.1, 0.6931472, 2.0, 30.0], np.float32)
    free = to_free(MeanField(jnp.zeros(5), jnp.asarray(std)))
    expected = np.log(np.expm1(std.astype(np.float64)))
    np.testing.assert_allclose(free.rho, expected, rtol=1e-6, atol=2e-7)


def test_any_rho_gives_a_standard_deviation():
    rho = jnp.array([-80.0, -1.0, 0.0, 500.0])
    std = from_free(Free(jnp.zeros(4), rho)).std
    assert (std > 0).all() and jnp.isfinite(std).all()


def test_half_precision_keeps_rho_wide():
    """A step of bfloat16 near rho = -7 would change std by 3 %."""
    std = jnp.linspace(1e-3, 2e-3, 50).astype(jnp.bfloat16)
    free = to_free(MeanField(jnp.zeros(50, jnp.bfloat16), std))
    assert free.mean.dtype == jnp.bfloat16 and free.rho.dtype == jnp.float32
    np.testing.assert_array_equal(from_free(free).std, std)


def test_other_leaves_are_the_same_objects_and_gradients_flow():
    bias = jnp.ones(3)
    params = {"w": MeanField(jnp.ones(2), jnp.full(2, 0.5)), "b": [bias, None]}
    free = to_free(params)
    assert free["b"][0] is bias and from_free(free)["b"][0] is bias
    assert jax.tree.structure(from_free(free)) == jax.tree.structure(params)
    gradient = jax.grad(lambda f: from_free(f)["w"].std.sum())(free)
    # d softplus / d rho = 1 - exp(-std)
    np.testing.assert_allclose(gradient["w"].rho, 1 - np.exp(-0.5), rtol=1e-6)
    np.testing.assert_array_equal(gradient["w"].mean, 0)


@pytest.mark.parametrize("layers", [(), (3,)])
def test_stacks_and_scalars(layers):
    weight = MeanField(jnp.zeros(layers), jnp.full(layers, 0.1))
    assert to_free({"w": weight})["w"].rho.shape == layers
