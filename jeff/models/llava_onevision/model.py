"""LLaVA-OneVision as functions of its parameters, and their names in checkpoints."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jeff import prng
from jeff.models import decoder
from jeff.models.decoder.block import linear
from jeff.models.llava_onevision.config import Config
from jeff.models.tensors import Tensor, decoder_tensors
from jeff.models.vision import siglip

__all__ = ["apply", "embed", "features", "init", "rename", "tensor_table"]


def init(key: jax.Array, config: Config, *, dtype: Any = jnp.float32) -> dict[str, Any]:
    """Random parameters: matrices normal with variance one over their inputs.

    Args:
      key: Random key.
      config: Sizes.
      dtype: Floating dtype of the parameters.

    Returns:
      ``vision``, ``projector`` and ``decoder``, layers listed.
    """
    width, into = config.decoder.width, _projected(config)

    def projection(name: str, into: int) -> dict[str, jax.Array]:
        drawn = jax.random.normal(prng.named_key(key, name), (into, width), dtype)
        bias = {"bias": jnp.zeros(width, dtype)} if config.projector_bias else {}
        return {"kernel": drawn * jnp.asarray(into**-0.5, dtype), **bias}

    newline = jax.random.normal(prng.named_key(key, "newline"), (width,), dtype)
    return {
        "vision": siglip.init(
            prng.named_key(key, "vision"), config.vision, dtype=dtype
        ),
        "projector": {
            "up": projection("up", into),
            "down": projection("down", width),
            "newline": newline * jnp.asarray(width**-0.5, dtype),
        },
        "decoder": decoder.init(
            prng.named_key(key, "decoder"), config.decoder, dtype=dtype
        ),
    }


def tensor_table(config: Config) -> tuple[Tensor, ...]:
    """The tensors of a checkpoint and where they stand in params.

    Args:
      config: Sizes.

    Returns:
      A row per tensor, under the names of `rename`.
    """
    width = config.decoder.width
    rows = [Tensor("projector.newline", "image_newline", (width,))]
    for path, number, into in (("up", 1, _projected(config)), ("down", 2, width)):
        at, name = f"projector.{path}", f"multi_modal_projector.linear_{number}"
        rows.append(Tensor(f"{at}.kernel", f"{name}.weight", (width, into), True))
        if config.projector_bias:
            rows.append(Tensor(f"{at}.bias", f"{name}.bias", (width,)))
    return (
        *siglip.siglip_tensors(config.vision),
        *rows,
        *decoder_tensors(config.decoder, prefix="language_model."),
    )


def rename(name: str) -> str | None:
    """The name in the table of a tensor of any version of the checkpoints.

    Args:
      name: What the file calls it: on the hub ``vision_tower.vision_model...`` and
        ``language_model.model...``; today's modules are ``model.vision_tower...``,
        ``model.language_model...`` and ``lm_head``.

    Returns:
      The name; ``None`` for the tower's pooling head, which nothing reads, and tables
      of rotary angles.

    Examples:
      >>> rename("vision_tower.vision_model.encoder.layers.0.mlp.fc1.bias")
      'vision_tower.encoder.layers.0.mlp.fc1.bias'
      >>> rename("model.language_model.norm.weight"), rename("lm_head.weight")
      ('language_model.model.norm.weight', 'language_model.lm_head.weight')
    """
    if name.startswith("lm_head."):
        return f"language_model.{name}"
    if name.startswith("model.language_model."):
        name = f"language_model.model.{name.removeprefix('model.language_model.')}"
    name = name.removeprefix("model.")
    name = name.replace("vision_tower.vision_model.", "vision_tower.", 1)
    if name.startswith("vision_tower.head.") or name.endswith(".rotary_emb.inv_freq"):
        return None
    return name


def features(
    params: Mapping[str, Any], pixel_values: jax.Array, *, config: Config
) -> jax.Array:
    """The table that `feature_index` points into: the tower, then the projector.

    Args:
      params: ``vision`` and ``projector``.
      pixel_values: ``[B, tiles, channels, image_size, image_size]``.
      config: Sizes.

    Returns:
      ``[B, 1 + tiles * patches, width of the decoder]``, the newline first.

    Raises:
      ValueError: If shapes do not fit.
    """
    if pixel_values.ndim != 5:
        raise ValueError(
            "pixel_values must be [batch, tiles, channels, image_size, image_size], "
            f"got {pixel_values.shape}"
        )
    batch, count = pixel_values.shape[:2]
    states = siglip.hidden_states(
        params["vision"],
        pixel_values.reshape(batch * count, *pixel_values.shape[2:]),
        config=config.vision,
        layers=config.feature_layers,
    )
    projector = params["projector"]
    x = states[0] if len(states) == 1 else jnp.concatenate(states, axis=-1)
    x = jax.nn.gelu(linear(projector["up"], x), approximate=False)
    x = linear(projector["down"], x).reshape(batch, -1, config.decoder.width)
    newline = projector["newline"].astype(x.dtype)
    newline = jnp.broadcast_to(newline, (batch, 1, x.shape[-1]))
    return jnp.concatenate([newline, x], axis=1)


def embed(
    params: Mapping[str, Any], inputs: Mapping[str, jax.Array], *, config: Config
) -> decoder.Sequence:
    """What the decoder reads: embedded text with features in it.

    Args:
      params: The parameters.
      inputs: From `prepare` or `model_inputs`.
      config: Sizes.

    Returns:
      Embeddings ``[B, N, width]`` in the dtype of the decoder, positions and `valid`.

    Raises:
      ValueError: If an input is absent (all are named), or shapes do not fit.
    """
    wanted = ["tokens", "valid", "positions"]
    if "pixel_values" in inputs or "feature_index" in inputs:
        wanted += ["pixel_values", "feature_index", "feature_weight"]
    if missing := [name for name in wanted if name not in inputs]:
        raise ValueError(f"inputs lack {', '.join(missing)}; got {sorted(inputs)}")
    x = decoder.embed(params["decoder"], inputs["tokens"])
    if "pixel_values" in inputs:
        index, weight = inputs["feature_index"], inputs["feature_weight"]
        if index.shape != (*x.shape[:2], 4) or weight.shape != index.shape:
            raise ValueError(
                f"feature_index and feature_weight must be {(*x.shape[:2], 4)}, "
                f"got {index.shape} and {weight.shape}"
            )
        table = features(params, inputs["pixel_values"], config=config)
        image = [
            weight[..., i, None]
            * jnp.take_along_axis(
                table, jnp.maximum(index[..., i, None], 0), axis=1, mode="clip"
            ).astype(jnp.float32)
            for i in range(4)
        ]
        image = sum(image[1:], start=image[0])
        x = jnp.where(index[..., :1] >= 0, image.astype(x.dtype), x)
    return decoder.Sequence(x, inputs["positions"], inputs["valid"])


def apply(
    params: Mapping[str, Any], inputs: Mapping[str, jax.Array], *, config: Config
) -> jax.Array:
    """Scores of the next token at every slot.

    Args:
      params: The parameters.
      inputs: From `prepare` or `model_inputs`.
      config: Sizes.

    Returns:
      float32 ``[B, N, vocabulary]``.

    Raises:
      ValueError: As `embed`.

    Examples:
      >>> import numpy as np
      >>> from jeff.models.llava_onevision import (
      ...     DecoderConfig, SiglipConfig, model_inputs, tile_count)
      >>> config = Config(
      ...     decoder=DecoderConfig(vocabulary=9, width=8, layers=1, heads=2,
      ...                           kv_heads=1, head_dim=4, hidden=8, qkv_bias=True),
      ...     vision=SiglipConfig(width=8, layers=1, heads=2, hidden=8, image_size=4,
      ...                         patch_size=2),
      ...     pinpoints=((4, 4), (4, 8)), image_token=7, video_token=8)
      >>> size = (4, 8)  # two tiles of 2 x 2 patches: 4 whole + 2 x (4 + newline)
      >>> tokens = np.array([[1, *[7] * 14, 2]])
      >>> pixels = np.ones((1, tile_count([size], config=config), 3, 4, 4))
      >>> inputs = model_inputs(tokens, tokens > 0, pixels, [[size]], config=config)
      >>> params = jax.eval_shape(lambda key: init(key, config), jax.random.key(0))
      >>> jax.eval_shape(lambda p, i: apply(p, i, config=config), params, inputs).shape
      (1, 16, 9)
    """
    sequence = embed(params, inputs, config=config)
    return decoder.apply(params["decoder"], sequence, config=config.decoder)


def _projected(config: Config) -> int:
    """Channels that the projector reads."""
    return config.vision.width * len(config.feature_layers)
