"""SigLIP's vision tower: a plain pre-norm transformer over the patches of a picture.

All pictures have one size, so there is no mask and no index; learned positions are
added to the patches. Matrices are stored ``[in, out]``::

    patch               kernel [width, channels, patch, patch] as in checkpoints, bias
    position            [patches, width]
    layers              a list of, or one dictionary with everything stacked:
      attention_norm    scale, bias
      attention         query, key, value, output: kernel, bias
      mlp_norm          scale, bias
      mlp               up, down: kernel, bias
    norm                scale, bias: behind the last layer, see `hidden_states`

References:
  Zhai et al., Sigmoid Loss for Language Image Pre-Training, arXiv 2303.15343.
  Dosovitskiy et al., ViT, arXiv 2010.11929, section 3.1.
"""

from collections.abc import Mapping
from collections.abc import Sequence as SequenceOf
from typing import Any

import jax
import jax.numpy as jnp

from jeff.models.decoder.block import attend, linear
from jeff.models.tensors import Tensor
from jeff.models.vision.layer_norm import layer_norm
from jeff.models.vision.siglip_config import SiglipConfig
from jeff.models.vision.tower import linear_rows, norm_rows, random_params

__all__ = ["SiglipConfig", "hidden_states", "init", "siglip_tensors"]


def hidden_states(
    params: Mapping[str, Any],
    pixels: jax.Array,
    *,
    config: SiglipConfig,
    layers: SequenceOf[int] = (-1,),
) -> tuple[jax.Array, ...]:
    """The residual stream after chosen layers; ``norm`` is not applied to it.

    Layers behind the last one that is asked for are not computed.

    Args:
      params: The tower's parameters, layers listed or stacked.
      pixels: Normalised, ``[pictures, channels, image_size, image_size]``.
      config: Sizes.
      layers: Which states: 0 is the embedding, ``n`` what layer ``n`` (from 1) leaves
        behind; negative numbers count from the last.

    Returns:
      For each of `layers` ``[pictures, patches, width]``, in the dtype of the params.

    Raises:
      ValueError: If `pixels` has another shape or a layer does not exist.

    Examples:
      >>> config = SiglipConfig(width=8, layers=3, heads=2, hidden=8, image_size=4,
      ...                       patch_size=2)
      >>> params = jax.eval_shape(lambda key: init(key, config), jax.random.key(0))
      >>> states = jax.eval_shape(
      ...     lambda p, x: hidden_states(p, x, config=config, layers=(1, -1)),
      ...     params, jnp.ones((5, 3, 4, 4)))
      >>> [state.shape for state in states]
      [(5, 4, 8), (5, 4, 8)]
    """
    expected = (config.channels, config.image_size, config.image_size)
    if pixels.ndim != 4 or pixels.shape[1:] != expected:
        raise ValueError(
            f"pixels must be [pictures, {', '.join(map(str, expected))}], "
            f"got {pixels.shape}"
        )
    wanted = [_state(layer, config) for layer in layers]
    depth = max(wanted)
    x = _embedded(params, pixels, config)
    stack = params["layers"]
    if isinstance(stack, Mapping):
        if depth < config.layers:
            stack = jax.tree.map(lambda a: a[:depth], stack)
        keep = any(0 < state < depth for state in wanted)

        def body(x, layer):
            x = _block(layer, x, config)
            return x, x if keep else None

        last, between = jax.lax.scan(body, x, stack) if depth else (x, None)
        every = {0: x, depth: last}
        if between is not None:
            every |= {state: between[state - 1] for state in wanted if state}
    else:
        every = {0: x}
        for state, layer in enumerate(stack[:depth], start=1):
            every[state] = x = _block(layer, x, config)
    return tuple(every[state] for state in wanted)


def init(
    key: jax.Array, config: SiglipConfig, *, dtype: Any = jnp.float32
) -> dict[str, Any]:
    """Random parameters: normal, of variance one over the inputs; norms at identity.

    Args:
      key: Random key; a leaf's draw depends on it and the leaf's name only.
      config: Sizes.
      dtype: Floating dtype of the parameters.

    Returns:
      The parameters, layers listed.

    Examples:
      >>> config = SiglipConfig(width=8, layers=2, heads=2, hidden=16, image_size=4,
      ...                       patch_size=2)
      >>> params = jax.eval_shape(lambda key: init(key, config), jax.random.key(0))
      >>> params["layers"][1]["mlp"]["up"]["kernel"].shape
      (8, 16)
    """
    inputs = {
        "patch.kernel": config.channels * config.patch_size**2,
        "position": config.width,
    }
    table = siglip_tensors(config)
    return random_params(key, table, inputs=inputs, dtype=dtype)["vision"]


def siglip_tensors(
    config: SiglipConfig, *, prefix: str = "vision_tower."
) -> tuple[Tensor, ...]:
    """The table of a tower, under ``vision`` in params.

    The attention-pooling head is not part of it.

    Args:
      config: Sizes.
      prefix: What stands before ``embeddings.`` and ``encoder.`` in the checkpoint.

    Returns:
      A row per tensor.

    Examples:
      >>> config = SiglipConfig(width=8, layers=2, heads=2, hidden=16, image_size=4,
      ...                       patch_size=2)
      >>> table = siglip_tensors(config)
      >>> len(table), table[3].name
      (37, 'vision_tower.encoder.layers.0.layer_norm1.weight')
    """
    width, hidden, size = config.width, config.hidden, config.patch_size
    patch = f"{prefix}embeddings.patch_embedding."
    position = f"{prefix}embeddings.position_embedding.weight"
    rows = [
        Tensor(
            "vision.patch.kernel",
            f"{patch}weight",
            (width, config.channels, size, size),
        ),
        Tensor("vision.patch.bias", f"{patch}bias", (width,)),
        Tensor("vision.position", position, (config.patches, width)),
    ]
    for i in range(config.layers):
        at, named = f"vision.layers.{i}.", f"{prefix}encoder.layers.{i}."
        rows += norm_rows(f"{at}attention_norm", f"{named}layer_norm1", width)
        for path, name in (
            ("query", "q_proj"),
            ("key", "k_proj"),
            ("value", "v_proj"),
            ("output", "out_proj"),
        ):
            name = f"{named}self_attn.{name}"
            rows += linear_rows(f"{at}attention.{path}", name, width, width)
        rows += norm_rows(f"{at}mlp_norm", f"{named}layer_norm2", width)
        rows += linear_rows(f"{at}mlp.up", f"{named}mlp.fc1", width, hidden)
        rows += linear_rows(f"{at}mlp.down", f"{named}mlp.fc2", hidden, width)
    rows += norm_rows("vision.norm", f"{prefix}post_layernorm", width)
    return tuple(rows)


def _state(layer: int, config: SiglipConfig) -> int:
    state = layer + config.layers + 1 if layer < 0 else layer
    if not 0 <= state <= config.layers:
        raise ValueError(
            f"layers must be in [{-config.layers - 1}, {config.layers}], got {layer}"
        )
    return state


def _embedded(params, pixels, config) -> jax.Array:
    kernel = params["patch"]["kernel"]
    x = jax.lax.conv_general_dilated(
        pixels.astype(kernel.dtype),
        kernel,
        window_strides=(config.patch_size, config.patch_size),
        padding="VALID",
        dimension_numbers=("NCHW", "OIHW", "NHWC"),
    )
    x = x.reshape(len(pixels), config.patches, config.width)
    return x + params["patch"]["bias"] + params["position"]


def _block(layer: Mapping[str, Any], x: jax.Array, config: SiglipConfig) -> jax.Array:
    attention, mlp = layer["attention"], layer["mlp"]
    h = layer_norm(layer["attention_norm"], x, eps=config.norm_eps)
    heads = (*h.shape[:2], config.heads, config.width // config.heads)
    q, k, v = (
        linear(attention[name], h).reshape(heads) for name in ("query", "key", "value")
    )
    x = x + linear(attention["output"], _attend(q, k, v, config).reshape(x.shape))
    h = layer_norm(layer["mlp_norm"], x, eps=config.norm_eps)
    h = jax.nn.gelu(linear(mlp["up"], h), approximate=True)
    return x + linear(mlp["down"], h)


def _attend(query, key, value, config: SiglipConfig) -> jax.Array:
    """Attention within each picture over ``[pictures, patches, heads, size]``."""
    everything = jnp.ones((1, config.patches, config.patches), bool)
    pieces = max(config.scores // (config.heads * config.patches**2), 1)
    if pieces >= len(query):
        return attend(query, key, value, everything)

    @jax.checkpoint  # the backward pass computes scores again and keeps none
    def one(picture):
        query, key, value = (a[None] for a in picture)
        return attend(query, key, value, everything)[0]

    return jax.lax.map(one, (query, key, value), batch_size=pieces)
