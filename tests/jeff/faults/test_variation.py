import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff.faults import (
    Deviation,
    gaussian,
    lognormal,
    reciprocal_normal,
    salt_and_pepper,
)

N = 20_000


@pytest.mark.parametrize(
    ("make", "back"),
    [
        (lognormal, lambda y: np.log(y)),
        (reciprocal_normal, lambda y: 1 / y - 1),
        (gaussian, lambda y: y - 1),
    ],
)
def test_noise_has_its_distribution_and_none_of_it_is_the_identity(make, back, key):
    @jax.jit
    def run(w, sigma):
        model = make(sigma)
        return model.inject(model.sample(key, w), w)

    z = back(np.asarray(run(jnp.ones(N), 0.1), np.float64)) / 0.1
    assert abs(z.mean()) < 4 / math.sqrt(N)  # standard error of a mean
    assert abs(z.std() - 1) < 4 / math.sqrt(2 * N)  # and of a standard deviation
    odd = jnp.array([-0.0, 0.0, 1.5, jnp.inf, 1e-40, -1e-45, jnp.nan])
    odd = jnp.resize(odd, N)
    same = run(odd, 0.0)
    np.testing.assert_array_equal(same.view(jnp.uint32), odd.view(jnp.uint32))
    like = jnp.zeros(3, jnp.bfloat16)
    narrow = jax.eval_shape(
        lambda x: make(0.1).inject(make(0.1).sample(key, x), x), like
    )
    assert narrow.dtype == jnp.bfloat16


def test_factors_are_differentiated_as_they_stand():
    w = jnp.array([1.0, -2.0])
    model, faults = lognormal(0.3), Deviation(jnp.array([0.5, 1.5]))
    grad = jax.jit(jax.grad(lambda w: model.inject(faults, w).sum()))(w)
    np.testing.assert_array_equal(grad, faults.amount)


def test_sigma_has_its_derivative_also_at_0(key):
    w = jnp.array([1.0, -2.0])

    def total(sigma, make):
        model = make(sigma)
        return model.inject(model.sample(key, w), w)

    z = np.asarray(jax.random.normal(key, (2,)))
    for make, expected in ((lognormal, w * z), (gaussian, z)):
        slope = jax.jacobian(total)(0.0, make)
        np.testing.assert_allclose(slope, expected, rtol=1e-6)


def test_float64_stays_exact(key):
    with jax.enable_x64(True):
        w = jnp.array([1 + 2.0**-40, 1.0], jnp.float64)
        for make in (lognormal, reciprocal_normal, gaussian):
            model = make(0.0)
            same = jax.jit(model.inject)(model.sample(key, w), w)
            np.testing.assert_array_equal(same, w)
        double = jax.jit(lognormal(0.1).inject)(Deviation(jnp.float32([2, 2])), w)
        np.testing.assert_array_equal(double, 2 * np.asarray(w))


def test_salt_and_pepper(key):
    rate, y = 0.2, jnp.asarray(np.linspace(-3.0, 2.0, N, dtype=np.float32))
    model = salt_and_pepper(rate)

    @jax.jit
    def run(y):
        faults = model.sample(key, y)
        grad = jax.grad(lambda y: model.inject(faults, y).sum())(y)
        return faults, model.inject(faults, y), grad

    faults, faulty, grad = jax.tree.map(np.asarray, run(y))
    assert not (faults.zero & faults.largest).any()
    for hit, value in ((faults.zero, 0.0), (faults.largest, 3.0)):
        assert (faulty[hit] == value).all()
        assert abs(hit.sum() - N * 0.1) < 4 * math.sqrt(N * 0.09)
    clean = ~(faults.zero | faults.largest)
    np.testing.assert_array_equal(faulty[clean], np.asarray(y)[clean])
    np.testing.assert_array_equal(grad, clean)


def test_bad_input_is_named(key):
    for make in (lognormal, reciprocal_normal, gaussian):
        for sigma in (-0.1, float("nan"), float("inf")):
            with pytest.raises(ValueError, match="sigma must be finite and at least 0"):
                make(sigma)
        with pytest.raises(TypeError, match="sigma must be one real number"):
            make("x")
        for array in (np.ones(2), np.ones((1,))):
            with pytest.raises(ValueError, match="sigma must be one number, got shape"):
                make(array)
            with pytest.raises(ValueError, match="sigma must be one number, got shape"):
                jax.eval_shape(lambda s, make=make: make(s).sample, array)
        with pytest.raises(TypeError, match="like must be floating, got int8"):
            make(0.1).sample(key, jnp.zeros(2, jnp.int8))
    with pytest.raises(ValueError, match="rate must be in .0, 1., got -1"):
        salt_and_pepper(-1)
