"""Outputs of several examples from the same weights: given, or refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.draws import light

from jeff import dm_bnn

KEY = jax.random.key(2)
RANDOM = dm_bnn.posterior({"w": jnp.ones((4, 3))}, 0.5)
IMAGES = dm_bnn.posterior({"w": jnp.ones((3, 2, 1, 1))}, 0.5)


def layer(p, x):
    return x @ p["w"]


def conv(p, x):
    return jax.lax.conv_general_dilated(x, p["w"], (1, 1), "SAME")


def channels_first(p, x):
    """Images ``[channels, batch, height, width]``."""
    numbers = ("CNHW", "OIHW", "CNHW")
    return jax.lax.conv_general_dilated(
        x, p["w"], (1, 1), "SAME", dimension_numbers=numbers
    )


@pytest.mark.parametrize("mode", dm_bnn.MODES)
def test_two_equal_examples_get_equal_outputs_where_weights_are_shared(mode):
    """What `joint` asks for, and what the modes that it refuses do."""
    settings = {"voters": 2, "mode": mode, "draw": light}

    @functools.partial(jax.jit, static_argnames="joint")
    def run(x, joint):
        return dm_bnn.predict(layer, RANDOM, x, KEY, joint=joint, **settings)

    x = jnp.ones((2, 4))
    y = run(x, joint=False)
    same = np.array_equal(y[:, 0], y[:, 1])
    assert same == (mode not in ("lrt", "flipout"))
    if same:
        np.testing.assert_array_equal(run(x, joint=True), y)
    else:
        with pytest.raises(ValueError, match=r"'w' has 2 examples; take mode='best'"):
            run(x, joint=True)


@pytest.mark.parametrize("mode", ["lrt", "flipout"])
def test_one_example_is_joint_by_itself(mode):
    settings = {"voters": 2, "mode": mode, "joint": True, "draw": light}
    for x in (jnp.ones((1, 4)), jnp.ones(4)):  # a batch of one; no batch
        y = dm_bnn.predict(layer, RANDOM, x, KEY, **settings)
        assert y.shape == (2, *x.shape[:-1], 3)


@pytest.mark.parametrize(
    ("program", "shape"), [(conv, (2, 2, 5, 5)), (channels_first, (2, 2, 5, 5))]
)
def test_convolutions_of_several_images_are_refused(program, shape):
    settings = {"voters": 2, "mode": "flipout", "joint": True}
    with pytest.raises(ValueError, match="'w' has 2 examples"):
        dm_bnn.predict(program, IMAGES, jnp.ones(shape), KEY, **settings)


def test_one_image_has_one_kernel_whatever_the_layout():
    settings = {"voters": 2, "mode": "flipout", "joint": True, "draw": light}
    one = jnp.ones((2, 1, 5, 5))
    y = dm_bnn.predict(channels_first, IMAGES, one, KEY, **settings)
    np.testing.assert_array_equal(y, np.broadcast_to(y[..., :1, :1], y.shape))
    # Local reparameterisation has noise for every position, of one image too.
    settings["mode"] = "lrt"
    with pytest.raises(ValueError, match="a convolution uses one kernel"):
        dm_bnn.predict(channels_first, IMAGES, one, KEY, **settings)


def test_leave_to_approximate_is_no_leave_to_part_examples():
    settings = {"voters": 2, "joint": True, "approximate": True}
    for mode in ("lrt", "flipout"):
        with pytest.raises(ValueError, match="joint=True"):
            dm_bnn.predict(layer, RANDOM, jnp.ones((2, 4)), KEY, mode=mode, **settings)


def test_the_default_sampler_of_training_is_not_joint():
    """The bound is a sum over examples, which may have noise of their own."""
    batch = jnp.ones((2, 4)), jnp.zeros(2, jnp.int32)
    bound = dm_bnn.elbo(layer, RANDOM, batch, 2, KEY)
    assert np.isfinite(bound.value)
