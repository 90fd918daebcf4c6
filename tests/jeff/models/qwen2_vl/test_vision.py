"""The vision tower: pictures apart, and attention in pieces."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff.models import qwen2_vl
from jeff.models.qwen2_vl import vision as vision_tower

CONFIG = qwen2_vl.VisionConfig(
    width=16, layers=1, heads=2, hidden=16, out=8, patch=2, frames=1
)
POSITION, SEGMENT = qwen2_vl.patch_layout([[1, 2, 4], [1, 4, 2]], patches=20)


@pytest.fixture(scope="module")
def vision():
    """Random parameters of the shapes that `init` gives."""
    shapes, _ = jax.eval_shape(
        lambda key: vision_tower.init(key, CONFIG), jax.random.key(0)
    )
    rng = np.random.default_rng(2)
    return jax.tree.map(
        lambda a: rng.normal(size=a.shape, scale=0.25).astype(np.float32), shapes
    )


@functools.partial(jax.jit, static_argnames="scores")
def run(vision, patches, position, segment, scores=CONFIG.scores):
    """Outputs of patches that are no padding, and gradients of their squares."""
    config = dataclasses.replace(CONFIG, scores=scores)

    def total(patches):
        y = vision_tower.encode(vision, patches, position, segment, config=config)
        y = jnp.where(segment[:, None] >= 0, y, 0)
        return (y**2).sum(), y

    return jax.grad(total, has_aux=True)(patches)


def test_pictures_do_not_see_each_other_or_padding(vision):
    patches = np.random.default_rng(0).normal(size=(20, CONFIG.pixels))
    patches = patches.astype(np.float32)
    slope, y = run(vision, patches, POSITION, SEGMENT)
    other = patches.copy()
    other[SEGMENT != 1] = 7.0
    slope_other, y_other = run(vision, other, POSITION, SEGMENT)
    second = SEGMENT == 1
    np.testing.assert_array_equal(y[second], y_other[second])
    np.testing.assert_array_equal(slope[second], slope_other[second])
    assert np.abs(y - y_other)[SEGMENT == 0].max() > 0.1
    assert not slope[SEGMENT < 0].any()


def test_attention_in_pieces_is_the_same(vision):
    """Also backwards, where each piece is computed again; 20 = 6 * 3 + 2 queries."""
    patches = np.random.default_rng(1).normal(size=(20, CONFIG.pixels))
    patches = patches.astype(np.float32)
    whole = run(vision, patches, POSITION, SEGMENT)
    pieces = run(vision, patches, POSITION, SEGMENT, scores=2 * 20 * 3)
    for got, want in zip(pieces, whole, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5)


def test_memory_of_scores_is_bounded():
    """4,096 patches of 16 heads have 1 GiB of scores, three times; here it is 64 MiB,
    three times, and the patches themselves."""
    config = qwen2_vl.VisionConfig(width=64, layers=1, heads=16, hidden=4, out=4)
    vision, _ = jax.eval_shape(
        lambda key: vision_tower.init(key, config), jax.random.key(0)
    )
    count = 4096
    shapes = [(count, config.pixels), (count, 2), (count,)]
    inputs = [
        jax.ShapeDtypeStruct(shape, kind)
        for shape, kind in zip(shapes, (jnp.float32, jnp.int32, jnp.int32), strict=True)
    ]
    encode = jax.jit(lambda p, *x: vision_tower.encode(p, *x, config=config))
    memory = encode.lower(vision, *inputs).compile().memory_analysis()
    bound = 3 * 4 * config.scores + 4 * count * config.pixels
    assert 4 * config.scores <= memory.temp_size_in_bytes <= bound


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        (((20, 11), (20, 2), (20,)), r"patches must have shape \(20, 12\)"),
        (((20, 12), (16, 2), (20,)), r"position must have shape \(20, 2\)"),
        (((20, 12), (20, 2), (16,)), r"segment must have shape \(20,\)"),
    ],
)
def test_shapes_must_fit(vision, shapes, words):
    patches, position, segment = (np.zeros(shape, np.float32) for shape in shapes)
    with pytest.raises(ValueError, match=words):
        vision_tower.encode(vision, patches, position, segment, config=CONFIG)
