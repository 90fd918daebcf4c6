"""Gaussian weights as stored weights: views, bit patterns, posteriors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff import base, dm_bnn, faults

W = dm_bnn.MeanField(
    jnp.arange(24.0).reshape(2, 3, 4), jnp.linspace(0, 1, 24).reshape(2, 3, 4)
)


@pytest.mark.parametrize(
    ("stored", "dense"),
    [
        (lambda w: w.transpose((2, 0, 1)), lambda a: a.transpose(2, 0, 1)),
        (lambda w: w.reshape((6, 4)), lambda a: a.reshape(6, 4)),
        (lambda w: w.slice((0, 1, 0), (2, 3, 2)), lambda a: a[0:2, 1:3, 0:2]),
        (lambda w: w.take(jnp.array([2, 0]), 1), lambda a: a[:, [2, 0]]),
    ],
)
def test_views_move_both_arrays(stored, dense):
    view = stored(W)
    np.testing.assert_array_equal(view.mean, dense(np.asarray(W.mean)))
    np.testing.assert_array_equal(view.std, dense(np.asarray(W.std)))
    np.testing.assert_array_equal(view.decode(), view.mean)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_codes_are_bit_patterns_there_and_back(dtype):
    w = W.astype(dtype)
    codes = w.codes()
    assert codes.shape == (*w.shape, 2)
    assert w.code_bits == 8 * jnp.dtype(dtype).itemsize == 8 * codes.dtype.itemsize
    again = w.with_codes(codes)
    np.testing.assert_array_equal(again.mean, w.mean)
    np.testing.assert_array_equal(again.std, w.std)
    assert W.astype(jnp.int8) is None


def test_bit_flips_hit_means_and_deviations():
    model = faults.on_weights(faults.bit_flip(0.05))
    params = {"w": W}
    hit = model.inject(model.sample(jax.random.key(0), params), params)["w"]
    changed = np.asarray(hit.codes() != W.codes())
    assert changed[..., 0].any() and changed[..., 1].any() and not changed.all()


def test_a_posterior_takes_one_width_or_a_tree_of_them():
    params = {"w": jnp.ones((2, 2)), "steps": jnp.arange(3)}
    one = dm_bnn.posterior(params, 0.5)
    assert base.is_stored(one["w"]) and not base.is_stored(one["steps"])
    widths = {"w": jnp.array([0.1, 0.2]), "steps": 0.0}
    np.testing.assert_allclose(dm_bnn.posterior(params, widths)["w"].std[1], [0.1, 0.2])
    for std, error, message in (
        (-1.0, ValueError, "std of 'w' must be finite and at least 0"),
        (float("nan"), ValueError, "std of 'w' must be finite"),
        ({"w": 1.0}, ValueError, "must be a tree like params"),
    ):
        with pytest.raises(error, match=message):
            dm_bnn.posterior(params, std)
    with pytest.raises(TypeError, match="'steps' is .*int32"):
        dm_bnn.posterior(params, 0.1, where=lambda name, leaf: name == "steps")
