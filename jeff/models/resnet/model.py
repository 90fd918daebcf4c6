"""Residual networks for CIFAR as plain functions: sizes, parameters, pictures.

A 3x3 stem, stages of blocks of two 3x3 convolutions with a skip, the mean over the
picture, and a matrix. The first block of a stage after the first halves the picture;
where a block changes the channels, its skip is a 1x1 convolution. Batch normalisation
is folded into the convolutions, so a layer is a kernel and a bias.

References:
  K. He et al., "Deep Residual Learning for Image Recognition", arXiv 1512.03385,
  section 4.2. ResNet-20 has 272,474 trained numbers when its skips are 1x1 convolutions
  with a normalisation (option B): those of `init` and a gain for each of 784 channels.
  ResNet-8: C. Banbury et al., "MLPerf Tiny Benchmark", arXiv 2106.07597, table 1.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

__all__ = [
    "RESNET_8",
    "RESNET_20",
    "ResNetConfig",
    "apply",
    "assemble",
    "init",
    "layer_shapes",
    "preprocess",
]

Params = dict[str, Any]

_PIXEL_MEAN, _PIXEL_SCALE = 128.0, 128.0
_PADDING = ("end", "both")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNetConfig:
    """Sizes of a residual network.

    Attributes:
      widths: Channels of every stage.
      blocks: Blocks of a stage; the depth is ``2 * blocks * len(widths) + 2``.
      classes: Outputs.
      channels: Channels of a picture.

    Raises:
      ValueError: If there is no stage or a size is no positive int.

    Examples:
      >>> ResNetConfig(blocks=5)
      ResNetConfig(widths=(16, 32, 64), blocks=5, classes=10, channels=3)
      >>> ResNetConfig(blocks=0)
      Traceback (most recent call last):
        ...
      ValueError: blocks must be a positive int, got 0
    """

    widths: tuple[int, ...] = (16, 32, 64)
    blocks: int = 3
    classes: int = 10
    channels: int = 3

    def __post_init__(self) -> None:
        """Checks the sizes."""
        if not self.widths:
            raise ValueError("widths must name at least one stage")
        sizes = {f"widths[{i}]": n for i, n in enumerate(self.widths)}
        sizes |= {n: getattr(self, n) for n in ("blocks", "classes", "channels")}
        for name, size in sizes.items():
            if not isinstance(size, int) or size < 1:
                raise ValueError(f"{name} must be a positive int, got {size!r}")


RESNET_8 = ResNetConfig(blocks=1)
"""77,706 numbers: the image classifier of MLPerf Tiny."""

RESNET_20 = ResNetConfig(blocks=3)
"""271,690 numbers, 40.8 million multiplications for a picture of 32x32."""


def layer_shapes(config: ResNetConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every kernel, in the order in which the network runs.

    Args:
      config: Sizes.

    Returns:
      By the name of the layer in params, ``[k, k, in, out]``, and ``[in, out]`` for the
      classifier. A bias is ``[out]``.

    Examples:
      >>> config = ResNetConfig(widths=(4, 8), blocks=1)
      >>> for name, shape in layer_shapes(config).items():
      ...     print(name, shape)
      stem (3, 3, 3, 4)
      blocks.0.first (3, 3, 4, 4)
      blocks.0.second (3, 3, 4, 4)
      blocks.1.first (3, 3, 4, 8)
      blocks.1.second (3, 3, 8, 8)
      blocks.1.skip (1, 1, 4, 8)
      classifier (8, 10)
    """
    into = config.widths[0]
    shapes: dict[str, tuple[int, ...]] = {"stem": (3, 3, config.channels, into)}
    for i, width in enumerate(w for w in config.widths for _ in range(config.blocks)):
        shapes[f"blocks.{i}.first"] = (3, 3, into, width)
        shapes[f"blocks.{i}.second"] = (3, 3, width, width)
        if i and i % config.blocks == 0:
            shapes[f"blocks.{i}.skip"] = (1, 1, into, width)
        into = width
    return {**shapes, "classifier": (into, config.classes)}


@functools.partial(jax.jit, static_argnames="config")
def init(key: jax.Array, config: ResNetConfig) -> Params:
    """Random parameters: normal kernels of variance ``2 / fan_in``, biases of 0.

    Args:
      key: A JAX key.
      config: Sizes.

    Returns:
      ``stem``, ``blocks`` (a list of ``first``, ``second`` and maybe ``skip``) and
      ``classifier``; each layer has a ``kernel`` and a ``bias``, float32, of the shapes
      of `layer_shapes`.

    Examples:
      >>> params = init(jax.random.key(0), RESNET_20)
      >>> sum(leaf.size for leaf in jax.tree.leaves(params))
      271690

    References:
      K. He et al., arXiv 1502.01852, section 2.2 (the variance).
    """

    shapes = layer_shapes(config)
    sizes = [math.prod(shape) for shape in shapes.values()]
    # One draw for all kernels: a draw for each of them takes seconds to compile.
    ends = np.cumsum(sizes)
    parts = jnp.split(jax.random.normal(key, (int(ends[-1]),)), ends[:-1].tolist())
    layers = {}
    for (name, shape), part in zip(shapes.items(), parts, strict=True):
        spread = math.sqrt(2.0 / math.prod(shape[:-1]))
        kernel = spread * part.reshape(shape)
        layers[name] = {"kernel": kernel, "bias": jnp.zeros(shape[-1:])}
    return assemble(layers)


def assemble(layers: dict[str, Params]) -> Params:
    """Params from layers by name.

    Args:
      layers: ``kernel`` and ``bias`` by the names of `layer_shapes`.

    Returns:
      The tree that `init` describes.

    Examples:
      >>> assemble({"stem": 1, "blocks.0.first": 2, "classifier": 3})
      {'stem': 1, 'blocks': [{'first': 2}], 'classifier': 3}
    """
    params: Params = {"stem": layers["stem"], "blocks": []}
    for name, layer in layers.items():
        group, _, rest = name.partition(".")
        if group == "blocks":
            index, _, part = rest.partition(".")
            if int(index) == len(params["blocks"]):
                params["blocks"].append({})
            params["blocks"][int(index)][part] = layer
    return {**params, "classifier": layers["classifier"]}


def apply(params: Params, images: jax.Array, *, padding: str = "end") -> jax.Array:
    """Scores of the classes.

    Sizes and strides are read off `params`: a block with a ``skip`` halves the picture.

    Args:
      params: As `init` gives them; leaves may be stored weights under `jeff.rewrite`.
      images: float ``[batch, height, width, channels]``, see `preprocess`.
      padding: Where a 3x3 convolution that halves an even side puts its zeros:
        ``"end"``, as Keras does, or ``"both"``, as PyTorch does with ``padding=1``.

    Returns:
      ``[batch, classes]``, dtype of `images`.

    Raises:
      ValueError: If `padding` is unknown or `images` is not ``[batch, height, width,
        channels]`` with the channels of the stem.

    Examples:
      >>> params = init(jax.random.key(0), RESNET_8)
      >>> jax.jit(apply)(params, jnp.zeros((2, 32, 32, 3))).shape
      (2, 10)
    """
    if padding not in _PADDING:
        raise ValueError(f"padding must be one of {_PADDING}, got {padding!r}")
    channels = params["stem"]["kernel"].shape[2]
    if images.ndim != 4 or images.shape[-1] != channels:
        raise ValueError(
            f"images must be [batch, height, width, {channels}], got {images.shape}"
        )
    x = jax.nn.relu(_conv(params["stem"], images, 1, padding))
    for block in params["blocks"]:
        stride = 2 if "skip" in block else 1
        y = jax.nn.relu(_conv(block["first"], x, stride, padding))
        y = _conv(block["second"], y, 1, padding)
        x = _conv(block["skip"], x, stride, padding) if "skip" in block else x
        x = jax.nn.relu(x + y)
    layer = params["classifier"]
    return x.mean(axis=(1, 2)) @ layer["kernel"] + layer["bias"]


def preprocess(images: jax.Array) -> jax.Array:
    """Pictures as the networks expect them: ``(x - 128) / 128``.

    Args:
      images: uint8 ``[batch, height, width, channels]``.

    Returns:
      float32 of the same shape, from -1 to 127 / 128.

    Raises:
      TypeError: If `images` is not uint8.

    Examples:
      >>> print(preprocess(jnp.array([[[[0, 128, 192]]]], jnp.uint8)))
      [[[[-1.   0.   0.5]]]]
    """
    if images.dtype != jnp.uint8:
        raise TypeError(f"images must be uint8, got {images.dtype}")
    return (jnp.asarray(images, jnp.float32) - _PIXEL_MEAN) / _PIXEL_SCALE


def _conv(layer: Params, x: jax.Array, stride: int, padding: str) -> jax.Array:
    kernel = layer["kernel"]
    pads = [(k // 2, k // 2) for k in kernel.shape[:2]]
    y = lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        "SAME" if padding == "end" else pads,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return y + layer["bias"]
