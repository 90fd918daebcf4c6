"""Residual networks: shapes, folding, padding, and what the published one knows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jeff
from jeff.models import resnet

TINY = resnet.ResNetConfig(widths=(4, 8), blocks=1, classes=3)


@pytest.fixture(scope="module")
def params():
    return resnet.init(jax.random.key(0), TINY)


@pytest.fixture(scope="module")
def run():
    return jax.jit(resnet.apply, static_argnames="padding")


def by_hand(params, images, padding):
    """The network with a convolution of loops over the window, in float64."""

    def conv(layer, x, stride):
        kernel = np.asarray(layer["kernel"], np.float64)
        k, side = kernel.shape[0], x.shape[1]
        out = -(-side // stride)
        total = max((out - 1) * stride + k - side, 0)
        first = total // 2 if padding == "end" else k // 2
        x = np.pad(x, ((0, 0), (first, k), (first, k), (0, 0)))
        last = (out - 1) * stride + 1
        y = sum(
            x[:, i : i + last : stride, j : j + last : stride] @ kernel[i, j]
            for i in range(k)
            for j in range(k)
        )
        return y + np.asarray(layer["bias"])

    x = np.maximum(conv(params["stem"], np.asarray(images, np.float64), 1), 0)
    for block in params["blocks"]:
        stride = 2 if "skip" in block else 1
        y = np.maximum(conv(block["first"], x, stride), 0)
        y = conv(block["second"], y, 1)
        x = np.maximum(y + (conv(block["skip"], x, stride) if stride == 2 else x), 0)
    layer = params["classifier"]
    return x.mean((1, 2)) @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])


@pytest.mark.parametrize("padding", ["end", "both"])
def test_it_is_the_network_written_out(params, run, padding):
    images = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    expected = by_hand(params, images, padding)
    np.testing.assert_allclose(run(params, images, padding=padding), expected, 1e-5)


def test_the_paddings_differ_only_where_a_side_is_halved(params, run):
    images = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    end, both = (run(params, images, padding=p) for p in ("end", "both"))
    assert not np.allclose(end, both)


def test_counts_are_those_of_the_papers():
    """272,474 trained numbers of ResNet-20: one gain of a normalisation a channel
    more than its folded form has; its 41 M multiplications (arXiv 1512.03385)."""
    shapes = resnet.layer_shapes(resnet.RESNET_20)
    folded = sum(np.prod(s) + s[-1] for s in shapes.values())
    channels = sum(s[-1] for name, s in shapes.items() if name != "classifier")
    assert (folded, folded + channels) == (271_690, 272_474)
    assert len(shapes) == 22  # 20 layers, two of whose skips are convolutions


def test_sites_count_the_multiplications():
    params = jax.eval_shape(lambda: resnet.init(jax.random.key(0), resnet.RESNET_20))
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    sites = jeff.sites(resnet.apply, params, images)
    assert [site.name.removesuffix(".kernel") for site in sites] == list(
        resnet.layer_shapes(resnet.RESNET_20)
    )


def test_the_stem_decides_what_a_picture_is(params):
    with pytest.raises(ValueError, match=r"images must be .*, 3\], got \(2, 8, 8, 1\)"):
        resnet.apply(params, jnp.zeros((2, 8, 8, 1)))
    with pytest.raises(ValueError, match="padding must be one of .*, got 'same'"):
        resnet.apply(params, jnp.zeros((2, 8, 8, 3)), padding="same")
    with pytest.raises(TypeError, match="images must be uint8, got float32"):
        resnet.preprocess(jnp.zeros((1, 8, 8, 3)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"widths": ()}, "at least one stage"),
        ({"widths": (16, 0)}, r"widths\[1\] must be a positive int, got 0"),
        ({"classes": 2.0}, r"classes must be a positive int, got 2\.0"),
    ],
)
def test_bad_sizes_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        resnet.ResNetConfig(**settings)


def test_folding_is_convolution_then_normalisation():
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(5, 6)), rng.normal(size=(6, 4))
    bias, gain, offset, mean = rng.normal(size=(4, 4))
    variance = rng.uniform(0.1, 2.0, 4)
    layer = resnet.fold_batch_norm(
        kernel, bias, gain=gain, offset=offset, mean=mean, variance=variance,
        epsilon=1e-3,
    )  # fmt: skip
    expected = (x @ kernel + bias - mean) / np.sqrt(variance + 1e-3) * gain + offset
    folded = x @ np.asarray(layer["kernel"], np.float64) + np.asarray(layer["bias"])
    np.testing.assert_allclose(folded, expected, atol=1e-6)
