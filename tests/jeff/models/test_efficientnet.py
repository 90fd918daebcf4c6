"""EfficientNet-Lite0: folding, shapes, and the fast depthwise convolution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff.models import efficientnet, pretrained


def state_dict(rng):
    """A random checkpoint with the published names and shapes."""
    state = {}

    def convolution(name, norm, shape):
        fan_in = np.prod(shape[1:])
        state[f"{name}.weight"] = rng.normal(0, fan_in**-0.5, shape).astype(np.float32)
        for field in ("weight", "bias", "running_mean", "running_var"):
            state[f"{norm}.{field}"] = rng.uniform(0.5, 1.5, shape[0]).astype(
                np.float32
            )

    convolution("_conv_stem", "_bn0", (32, 3, 3, 3))
    channels, index = 32, 0
    for stage in efficientnet.STAGES:
        for _ in range(stage.blocks):
            block, inner = f"_blocks.{index}", channels * stage.expansion
            if stage.expansion > 1:
                convolution(
                    f"{block}._expand_conv", f"{block}._bn0", (inner, channels, 1, 1)
                )
            kernel = (inner, 1, stage.kernel, stage.kernel)
            convolution(f"{block}._depthwise_conv", f"{block}._bn1", kernel)
            convolution(
                f"{block}._project_conv", f"{block}._bn2", (stage.channels, inner, 1, 1)
            )
            channels, index = stage.channels, index + 1
    convolution("_conv_head", "_bn1", (1280, channels, 1, 1))
    state["_fc.weight"] = rng.normal(0, 0.03, (1000, 1280)).astype(np.float32)
    state["_fc.bias"] = rng.normal(0, 1, 1000).astype(np.float32)
    return state


@pytest.fixture(scope="module")
def state():
    return state_dict(np.random.default_rng(0))


@pytest.fixture(scope="module")
def params(state):
    return efficientnet.from_torch(state)


def test_parameter_count_is_that_of_the_paper_network(params):
    """The 4,694,024 numbers of the checkpoint less 3 for each of 21,008 channels."""
    assert len(params["blocks"]) == 16
    assert sum(p.size for p in jax.tree.leaves(params)) == 4_631_000


def test_folded_stem_is_convolution_then_normalisation(state, params):
    """Compared with the unfolded formula, written out in NumPy for one pixel."""
    rng = np.random.default_rng(1)
    image = rng.normal(size=(1, 2, 2, 3)).astype(np.float32)
    padded = np.zeros((3, 3, 3))
    padded[:2, :2] = image[0]  # "SAME" for stride 2 pads at the end
    w = state["_conv_stem.weight"]  # [out, in, row, column]
    raw = np.einsum("ijc,ocij->o", padded, w)
    mean, variance = state["_bn0.running_mean"], state["_bn0.running_var"]
    normal = (raw - mean) / np.sqrt(variance + 1e-3)
    expected = normal * state["_bn0.weight"] + state["_bn0.bias"]
    stem = params["stem"]
    y = jax.lax.conv_general_dilated(
        image,
        stem["kernel"],
        (2, 2),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    np.testing.assert_allclose(
        y[0, 0, 0] + stem["bias"], expected, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(
    ("shape", "kernel", "stride"),
    [
        ((8, 8), 3, 1),
        ((8, 8), 5, 2),
        ((7, 10), 5, 1),
        ((7, 10), 3, 2),
        ((2, 5), 5, 3),
        ((1, 1), 3, 2),
    ],
)
def test_shifted_products_equal_the_convolution(shape, kernel, stride):
    key_x, key_w = jax.random.split(jax.random.key(kernel * stride))
    x = jax.random.normal(key_x, (2, *shape, 4))
    w = jax.random.normal(key_w, (kernel, kernel, 1, 4))
    np.testing.assert_allclose(
        jax.jit(efficientnet.depthwise_shifts, static_argnums=2)(x, w, stride),
        efficientnet.depthwise_conv(x, w, stride),
        rtol=1e-5,
        atol=1e-5,
    )


def test_depthwise_convolution_by_hand():
    """A 3x3 box over ones counts the pixels inside the picture."""
    counts = efficientnet.depthwise_conv(
        jnp.ones((1, 3, 3, 2)), jnp.ones((3, 3, 1, 2)), 1
    )
    np.testing.assert_array_equal(
        counts[0, :, :, 1], [[4.0, 6.0, 4.0], [6.0, 9.0, 6.0], [4.0, 6.0, 4.0]]
    )


def test_every_stage_has_the_size_of_the_table(params):
    sides = {1: 16, 2: 8, 3: 4, 4: 2, 5: 2, 6: 1, 7: 1}
    for stage, side in sides.items():
        shape = jax.eval_shape(
            lambda p, x, stage=stage: efficientnet.features(p, x, stage=stage),
            params,
            jnp.zeros((2, 32, 32, 3)),
        ).shape
        channels = efficientnet.STAGES[stage - 1].channels
        assert shape == (2, side, side, channels)


def test_logits_do_not_depend_on_the_depthwise_form(params):
    x = jax.random.normal(jax.random.key(2), (1, 32, 32, 3))
    slow, fast = (
        jax.jit(lambda p, x, d=d: efficientnet.logits(p, x, depthwise=d))(params, x)
        for d in (efficientnet.depthwise_conv, efficientnet.depthwise_shifts)
    )
    assert slow.shape == (1, 1000)
    np.testing.assert_allclose(fast, slow, rtol=1e-4, atol=1e-4)


def test_a_block_without_its_weights_is_only_its_skip(params):
    """Zero projection in the second block of stage 2: the map of the first is kept."""
    x = jax.random.normal(jax.random.key(3), (1, 32, 32, 3))
    blocks = list(params["blocks"])
    blocks[2] = blocks[2] | {
        "project": jax.tree.map(jnp.zeros_like, blocks[2]["project"])
    }
    run = jax.jit(lambda p: efficientnet.features(p, x, stage=2))
    without = run(params | {"blocks": blocks})
    assert not np.allclose(without, run(params))
    blocks[2] = jax.tree.map(jnp.zeros_like, blocks[2])
    zeroed = run(params | {"blocks": blocks})
    np.testing.assert_array_equal(without, zeroed)


def test_preprocess_keeps_constant_pictures_and_scales():
    images = jnp.full((1, 5, 7, 3), 255, jnp.uint8)
    x = efficientnet.preprocess(images, size=12)
    assert x.shape == (1, 12, 12, 3) and x.dtype == jnp.float32
    np.testing.assert_allclose(x, 1.0, rtol=1e-6)


def test_bad_arguments_are_named(params):
    x = jnp.zeros((1, 32, 32, 3))
    with pytest.raises(ValueError, match=r"stage must be in 1\.\.7, got 8"):
        efficientnet.features(params, x, stage=8)
    short = pretrained.load_vision()["encoder"]
    with pytest.raises(ValueError, match="params has 11 blocks, stage 6 needs 15"):
        efficientnet.features(short, x, stage=6)
    with pytest.raises(TypeError, match="images must be uint8, got float32"):
        efficientnet.preprocess(x, size=8)
    with pytest.raises(ValueError, match=r"images must be .*\(4, 4, 3\)"):
        efficientnet.preprocess(jnp.zeros((4, 4, 3), jnp.uint8), size=8)
    with pytest.raises(KeyError, match=r"_conv_stem\.weight"):
        efficientnet.from_torch({})
