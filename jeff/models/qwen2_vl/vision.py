"""The vision tower of Qwen2-VL: patches of all pictures in one row.

Pictures keep their own numbers of patches; what tells them apart are two index arrays
from the host, `jeff.models.qwen2_vl.patch_layout`: where a patch stands in its picture
and which picture it belongs to. Shapes are static, whatever the pictures' sizes.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jeff.models.decoder.block import linear
from jeff.models.decoder.rotary import rotate
from jeff.models.qwen2_vl.config import VisionConfig
from jeff.models.tensors import Tensor
from jeff.models.vision.layer_norm import layer_norm
from jeff.models.vision.tower import linear_rows, norm_rows, random_params

__all__ = ["encode", "init", "merge", "vision_tensors"]


def encode(
    params: Mapping[str, Any],
    patches: jax.Array,
    position: jax.Array,
    segment: jax.Array,
    *,
    config: VisionConfig,
) -> jax.Array:
    """The tower: a patch attends to all patches of its own picture.

    Args:
      params: ``patch_embed`` ``[width, channels, frames, patch, patch]`` as the
        checkpoint has it, and ``layers``: a list of blocks, or one block of stacked
        leaves, each with ``attention_norm``, ``attention`` (``qkv`` and ``output``),
        ``mlp_norm`` and ``mlp`` (``up`` and ``down``).
      patches: ``[P, channels * frames * patch * patch]``, normalised pixels.
      position: int32 ``[P, 2]``, row and column of a patch in its picture.
      segment: int32 ``[P]``, number of the picture, -1 for padding.
      config: Sizes.

    Returns:
      ``[P, width]`` in the dtype of the params, after the last block; there is no
      norm behind it.

    Raises:
      ValueError: If shapes do not fit each other.

    Examples:
      Two pictures of 2 x 2 patches, and a padded square:

      >>> config = VisionConfig(width=8, layers=1, heads=2, hidden=8, out=4, patch=2)
      >>> draw = lambda key: init(key, config)[0]
      >>> vision = jax.eval_shape(draw, jax.random.key(0))
      >>> patches = jax.ShapeDtypeStruct((12, config.pixels), jnp.float32)
      >>> where = jnp.array([[0, 0], [0, 1], [1, 0], [1, 1]] * 3)
      >>> picture = jnp.array([0] * 4 + [1] * 4 + [-1] * 4)
      >>> jax.eval_shape(lambda p, x: encode(p, x, where, picture, config=config),
      ...                vision, patches).shape
      (12, 8)

    References:
      Wang et al., Qwen2-VL, arXiv 2409.12191, section 2.1.
    """
    count = patches.shape[0]
    wanted = {"patches": (count, config.pixels), "position": (count, 2)}
    given = {"patches": patches.shape, "position": position.shape}
    for name, shape in ({**wanted, "segment": (count,)}).items():
        if (got := given.get(name, segment.shape)) != shape:
            raise ValueError(f"{name} must have shape {shape}, got {got}")
    kernel = params["patch_embed"]
    x = patches.astype(kernel.dtype) @ kernel.reshape(config.width, -1).T
    rotary = _rotary(position, config)
    layers = params["layers"]
    if isinstance(layers, Mapping):

        def body(x, layer):
            return _block(layer, x, rotary, segment, config), None

        return jax.lax.scan(body, x, layers)[0]
    for layer in layers:
        x = _block(layer, x, rotary, segment, config)
    return x


def merge(
    params: Mapping[str, Any], x: jax.Array, *, config: VisionConfig
) -> jax.Array:
    """Squares of patches become features of the decoder's width.

    Args:
      params: ``norm``, ``up`` and ``down``.
      x: ``[P, width]`` in the order of the layout: the patches of a square are
        neighbours.
      config: Sizes.

    Returns:
      ``[P / merge**2, out]``.

    Examples:
      >>> config = VisionConfig(width=8, layers=1, heads=2, hidden=8, out=4)
      >>> draw = lambda key: init(key, config)[1]
      >>> projector = jax.eval_shape(draw, jax.random.key(0))
      >>> x = jax.ShapeDtypeStruct((12, 8), jnp.float32)
      >>> jax.eval_shape(lambda p, x: merge(p, x, config=config), projector, x).shape
      (3, 4)
    """
    x = layer_norm(params["norm"], x, eps=config.norm_eps)
    x = x.reshape(-1, config.merge**2 * config.width)
    return linear(
        params["down"], jax.nn.gelu(linear(params["up"], x), approximate=False)
    )


def init(
    key: jax.Array, config: VisionConfig, *, dtype: Any = jnp.float32
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Random parameters: normal, of variance one over the inputs; norms at identity.

    Args:
      key: Random key; a leaf's draw depends on it and the leaf's name only.
      config: Sizes.
      dtype: Floating dtype of the parameters.

    Returns:
      Params of `encode` and params of `merge`.

    Examples:
      >>> config = VisionConfig(width=8, layers=2, heads=2, hidden=16, out=4)
      >>> draw = lambda key: init(key, config)
      >>> vision, projector = jax.eval_shape(draw, jax.random.key(0))
      >>> vision["layers"][1]["attention"]["qkv"]["kernel"].shape
      (8, 24)
      >>> projector["up"]["kernel"].shape, vision["patch_embed"].shape
      ((32, 32), (8, 3, 2, 14, 14))
    """
    table, inputs = vision_tensors(config), {"patch_embed": config.pixels}
    params = random_params(key, table, inputs=inputs, dtype=dtype)
    return params["vision"], params["projector"]


def vision_tensors(config: VisionConfig) -> tuple[Tensor, ...]:
    """The table of the tower, under ``vision``, and of the merger, under ``projector``.

    Args:
      config: Sizes.

    Returns:
      A row per tensor, named as `transformers` saves them (``visual.``).

    Examples:
      >>> table = vision_tensors(VisionConfig(width=8, layers=2, heads=2, hidden=16,
      ...                                     out=4))
      >>> len(table), table[0].name, table[0].shape
      (31, 'visual.patch_embed.proj.weight', (8, 3, 2, 14, 14))
    """
    width, square = config.width, config.merge**2 * config.width
    kernel = (width, config.channels, config.frames, config.patch, config.patch)
    rows = [Tensor("vision.patch_embed", "visual.patch_embed.proj.weight", kernel)]
    for i in range(config.layers):
        at, named = f"vision.layers.{i}.", f"visual.blocks.{i}."
        rows += norm_rows(at + "attention_norm", named + "norm1", width)
        rows += linear_rows(at + "attention.qkv", named + "attn.qkv", width, 3 * width)
        rows += linear_rows(at + "attention.output", named + "attn.proj", width, width)
        rows += norm_rows(at + "mlp_norm", named + "norm2", width)
        rows += linear_rows(at + "mlp.up", named + "mlp.fc1", width, config.hidden)
        rows += linear_rows(at + "mlp.down", named + "mlp.fc2", config.hidden, width)
    rows += norm_rows("projector.norm", "visual.merger.ln_q", width)
    rows += linear_rows("projector.up", "visual.merger.mlp.0", square, square)
    rows += linear_rows("projector.down", "visual.merger.mlp.2", square, config.out)
    return tuple(rows)


def _rotary(position: jax.Array, config: VisionConfig) -> tuple[jax.Array, jax.Array]:
    """Tables ``[1, P, head / 2]``: half of the angles by row, half by column."""
    quarter = config.width // config.heads // 4
    rates = config.rope_base ** (-np.arange(quarter, dtype=np.float64) / quarter)
    angles = position.astype(jnp.float32)[..., None] * rates.astype(np.float32)
    angles = angles.reshape(1, -1, 2 * quarter)
    return jnp.cos(angles), jnp.sin(angles)


def _block(layer, x, rotary, segment, config) -> jax.Array:
    attention, mlp = layer["attention"], layer["mlp"]
    h = layer_norm(layer["attention_norm"], x, eps=config.norm_eps)
    qkv = linear(attention["qkv"], h).reshape(len(x), 3, config.heads, -1)
    q, k = (rotate(qkv[None, :, i], *rotary)[0] for i in (0, 1))
    y = _attend(q, k, qkv[:, 2], segment, config.scores)
    x = x + linear(attention["output"], y.reshape(x.shape))
    h = linear(mlp["up"], layer_norm(layer["mlp_norm"], x, eps=config.norm_eps))
    return x + linear(mlp["down"], h * jax.nn.sigmoid(1.702 * h))


def _attend(query, key, value, segment, limit: int) -> jax.Array:
    """Attention within segments over ``[P, heads, size]``; softmax in float32."""
    count, heads, size = query.shape

    def one(query, segment_of_query):  # [heads, size], []
        scores = jnp.einsum(
            "hd,khd->hk", query, key, preferred_element_type=jnp.float32
        )
        own = segment == segment_of_query  # at least the patch itself
        scores = jnp.where(own, scores * size**-0.5, jnp.finfo(jnp.float32).min)
        weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
        return jnp.einsum("hk,khd->hd", weights, value)

    rows = max(limit // (heads * count), 1)
    if rows >= count:
        return jax.vmap(one)(query, segment)
    # The backward pass computes scores again, piece by piece, and keeps none.
    return jax.lax.map(
        lambda pair: jax.checkpoint(one)(*pair), (query, segment), batch_size=rows
    )
