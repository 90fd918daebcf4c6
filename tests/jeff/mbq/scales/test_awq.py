import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import mbq_reference as ref

from jeff.mbq.scales.awq import awq_scale, weight_magnitude


def test_against_float64_reference():
    rng = np.random.default_rng(0)
    for _ in range(50):
        w = rng.normal(size=(6, 16)) * 10.0 ** rng.uniform(-2, 2, (1, 16))
        x = 10.0 ** rng.uniform(-3, 2, 16)
        for group in (4, 16):
            alpha = rng.uniform()
            wm = weight_magnitude(jnp.asarray(w.T, jnp.float32), group)
            got = awq_scale(jnp.asarray(x, jnp.float32), wm, alpha)
            np.testing.assert_allclose(
                got, ref.duo_scale(x, w, group, alpha), rtol=1e-5
            )


def test_no_group_is_one_group():
    w = jnp.asarray(np.random.default_rng(1).normal(size=(8, 3)), jnp.float32)
    np.testing.assert_array_equal(weight_magnitude(w), weight_magnitude(w, 8))


def test_large_inputs_with_small_weights_get_the_largest_scale():
    got = awq_scale(jnp.array([1.0, 9.0, 9.0]), jnp.array([0.5, 0.5, 0.1]), 0.5)
    assert got[0] < got[1] < got[2]


def test_vmap_over_alpha_equals_a_loop():
    m, w, alphas = jnp.array([1.0, 2.0]), jnp.array([0.3, 0.6]), jnp.linspace(0, 1, 5)
    got = jax.jit(jax.vmap(awq_scale, (None, None, 0)))(m, w, alphas)
    want = jnp.stack([awq_scale(m, w, a) for a in alphas])
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_bad_calibration_data_shows():
    assert jnp.isnan(awq_scale(jnp.array([jnp.nan, 1.0]), jnp.ones(2), 0.5)).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: weight_magnitude(jnp.ones(4)), r"got \(4,\)"),
        (lambda: weight_magnitude(jnp.ones((4, 2)), 3), "4 inputs, got 3"),
        (lambda: weight_magnitude(jnp.ones((4, 2)), 0), "4 inputs, got 0"),
        (lambda: awq_scale(jnp.ones(3), jnp.ones(2), 0.5), r"\(3,\) and \(2,\)"),
        (lambda: awq_scale(jnp.ones(3), jnp.ones(3), jnp.ones(2)), r"shape \(2,\)"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
