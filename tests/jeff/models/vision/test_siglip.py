"""The vision tower by itself: patches, chosen states, listed and stacked layers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff.models import decoder
from jeff.models.vision import siglip
from jeff.models.vision.layer_norm import layer_norm

CONFIG = siglip.SiglipConfig(
    width=8, layers=3, heads=2, hidden=12, image_size=5, patch_size=2
)


@pytest.fixture(scope="module")
def case():
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda k: siglip.init(k, CONFIG), jax.random.key(0))
    params = jax.tree.map(
        lambda leaf: random.normal(size=leaf.shape).astype(np.float32), shapes
    )
    params = jax.tree.map(jnp.asarray, params)
    pixels = random.normal(size=(2, 3, 5, 5)).astype(np.float32)
    return params, pixels


def states(params, pixels, config=CONFIG):
    run = jax.jit(
        lambda p, x: siglip.hidden_states(p, x, config=config, layers=(0, 1, -2))
    )
    return [np.asarray(state) for state in run(params, pixels)]


@pytest.fixture(scope="module")
def listed(case):
    return states(*case)


def test_patches_are_read_row_by_row_without_the_rest(case, listed):
    params, pixels = case
    kernel = np.asarray(params["patch"]["kernel"])
    corners = [(0, 0), (0, 2), (2, 0), (2, 2)]  # the fifth row and column are left over
    want = np.stack(
        [
            np.einsum("bcyx,ocyx->bo", pixels[:, :, y : y + 2, x : x + 2], kernel)
            for y, x in corners
        ],
        axis=1,
    )
    want += np.asarray(params["position"]) + np.asarray(params["patch"]["bias"])
    np.testing.assert_allclose(listed[0], want, atol=1e-5)


def test_stacked_layers_give_the_listed_ones_states(case, listed):
    params, pixels = case
    stacked = states(decoder.stack_layers(params), pixels)
    for got, want in zip(stacked, listed, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-4)
    assert np.abs(listed[1] - listed[2]).max() > 0.1


def test_attention_in_pieces_is_the_same(case, listed):
    config = dataclasses.replace(CONFIG, scores=1)
    for got, want in zip(states(*case, config=config), listed, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-4)


def test_layers_behind_the_last_wanted_one_are_not_computed(case):
    params, pixels = case
    cut = {**params, "layers": params["layers"][:1]}
    shape = jax.eval_shape(
        lambda p, x: siglip.hidden_states(p, x, config=CONFIG, layers=(1,)), cut, pixels
    )
    assert shape[0].shape == (2, 4, 8)


def test_bfloat16_keeps_its_dtype(case):
    params, pixels = case
    half = jax.tree.map(lambda a: a.astype(jnp.bfloat16), params)
    (last,) = jax.eval_shape(
        lambda p, x: siglip.hidden_states(p, x, config=CONFIG), half, pixels
    )
    assert last.dtype == jnp.bfloat16


def test_layer_norm_is_that_of_numpy():
    x = np.random.default_rng(1).normal(3.0, 2.0, (4, 8))
    params = {"scale": jnp.arange(8.0), "bias": jnp.ones(8)}
    want = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 0.1)
    got = layer_norm(params, jnp.asarray(x, jnp.float32), eps=0.1)
    np.testing.assert_allclose(got, want * np.arange(8) + 1, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"heads": 3}, "heads must divide width 8: 3"),
        ({"patch_size": 6}, "patch_size must be at most image_size 5"),
        ({"layers": 0}, "layers must be a positive int"),
        ({"norm_eps": 0.0}, "norm_eps must be positive"),
    ],
)
def test_impossible_sizes_are_refused(change, words):
    sizes = dict(width=8, layers=3, heads=2, hidden=12, image_size=5, patch_size=2)
    with pytest.raises(ValueError, match=words):
        siglip.SiglipConfig(**{**sizes, **change})


def test_wrong_pictures_and_layers_are_refused(case):
    params, pixels = case
    with pytest.raises(ValueError, match=r"pixels must be \[pictures, 3, 5, 5\]"):
        siglip.hidden_states(params, pixels[:, :1], config=CONFIG)
    with pytest.raises(ValueError, match=r"layers must be in \[-4, 3\], got 4"):
        siglip.hidden_states(params, pixels, config=CONFIG, layers=(4,))
