"""A tiny vision-language model: EfficientNet features before a small decoder.

The architecture of the large ones at toy size: a frozen vision encoder, a linear
projector, then a pre-norm decoder over vision tokens followed by question words. Vision
tokens attend to each other, words causally, and the answer is the prediction at the
last word. The decoder is an ordinary flax module with scanned layers; nothing in it
knows of jeff.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jeff.models import efficientnet
from jeff.models.vqa_words import (
    ANSWERS,
    MAX_WORDS,
    PAD,
    VOCABULARY,
    detokenize,
    tokenize,
)

__all__ = [
    "ANSWERS",
    "MAX_WORDS",
    "PAD",
    "VOCABULARY",
    "TinyVLM",
    "TinyVLMConfig",
    "detokenize",
    "token_masks",
    "tokenize",
    "vision_tokens",
]

IMAGE_SIZE = 128
"""Side in pixels that images are resized to."""

ENCODER_STAGE = 5
"""Stage of EfficientNet-Lite0 whose 8x8 map of 112 channels the tokens come from."""

VISION_TOKENS = 16
"""Vision tokens of an image: the 8x8 map averaged to 4x4, row by row."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TinyVLMConfig:
    """Sizes of a `TinyVLM`.

    Attributes:
      vision_features: Channels of a vision token.
      vision_tokens: Vision tokens of an image.
      vocabulary: Entries of the vocabulary.
      max_words: Longest question.
      width: Channels of the residual stream.
      layers: Decoder layers.
      heads: Attention heads; divides `width`.
      hidden: Channels inside the gated MLP.

    Raises:
      ValueError: If a size is no positive int, or `heads` does not divide `width`.

    Examples:
      >>> TinyVLMConfig(layers=2).width
      128
      >>> TinyVLMConfig(heads=3)
      Traceback (most recent call last):
        ...
      ValueError: heads must divide width 128: 3
    """

    vision_features: int = 112
    vision_tokens: int = VISION_TOKENS
    vocabulary: int = len(VOCABULARY)
    max_words: int = MAX_WORDS
    width: int = 128
    layers: int = 4
    heads: int = 4
    hidden: int = 256

    def __post_init__(self) -> None:
        """Checks the sizes."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{field.name} must be a positive int, got {value!r}")
        if self.width % self.heads:
            raise ValueError(f"heads must divide width {self.width}: {self.heads}")


class Attention(nnx.Module):
    """Multi-head attention with separate query, key, value and output matrices."""

    def __init__(self, config: TinyVLMConfig, *, rngs: nnx.Rngs):
        """Makes the four ``width x width`` matrices, without biases."""
        self.heads = config.heads

        def linear() -> nnx.Linear:
            return nnx.Linear(config.width, config.width, use_bias=False, rngs=rngs)

        self.query, self.key, self.value = linear(), linear(), linear()
        self.output = linear()

    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        """Attends where `mask` ``[batch, 1, position, position]`` is true."""
        split = (*x.shape[:-1], self.heads, x.shape[-1] // self.heads)
        q, k, v = (p(x).reshape(split) for p in (self.query, self.key, self.value))
        y = jax.nn.dot_product_attention(q, k, v, mask=mask)  # [B, S, heads, d]
        return self.output(y.reshape(x.shape))


class GatedMLP(nnx.Module):
    """``down(silu(gate(x)) * up(x))``, without biases."""

    def __init__(self, config: TinyVLMConfig, *, rngs: nnx.Rngs):
        """Makes the three matrices."""
        width, hidden = config.width, config.hidden
        self.gate = nnx.Linear(width, hidden, use_bias=False, rngs=rngs)
        self.up = nnx.Linear(width, hidden, use_bias=False, rngs=rngs)
        self.down = nnx.Linear(hidden, width, use_bias=False, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Works on ``[..., width]``."""
        return self.down(nnx.silu(self.gate(x)) * self.up(x))


class Layer(nnx.Module):
    """A pre-norm decoder layer."""

    def __init__(self, config: TinyVLMConfig, *, rngs: nnx.Rngs):
        """Makes two normalisations, the attention and the MLP."""
        self.attention_norm = nnx.RMSNorm(config.width, rngs=rngs)
        self.attention = Attention(config, rngs=rngs)
        self.mlp_norm = nnx.RMSNorm(config.width, rngs=rngs)
        self.mlp = GatedMLP(config, rngs=rngs)

    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        """Adds attention, then the MLP, to the residual stream."""
        x = x + self.attention(self.attention_norm(x), mask)
        return x + self.mlp(self.mlp_norm(x))


class TinyVLM(nnx.Module):
    """The decoder: vision tokens and question words to logits over the vocabulary.

    Parameters of the layers are stacked on a leading axis, so
    ``layers.attention.query.kernel`` is ``[layers, width, width]``.

    Args:
      config: Sizes.
      rngs: Source of the initial parameters.

    Examples:
      >>> model = TinyVLM(TinyVLMConfig(layers=2), rngs=nnx.Rngs(0))
      >>> model(jnp.zeros((1, 16, 112)), tokenize(["is a red shape present?"])).shape
      (1, 28)
    """

    def __init__(self, config: TinyVLMConfig, *, rngs: nnx.Rngs):
        """Draws the parameters."""
        self.config = config
        width = config.width

        def positions(count: int) -> nnx.Param:
            return nnx.Param(0.02 * jax.random.normal(rngs.params(), (count, width)))

        @nnx.split_rngs(splits=config.layers)
        @nnx.vmap(in_axes=0, out_axes=0)
        def stack(rngs: nnx.Rngs) -> Layer:
            return Layer(config, rngs=rngs)

        self.projector = nnx.Linear(config.vision_features, width, rngs=rngs)
        self.embed = nnx.Embed(config.vocabulary, width, rngs=rngs)
        self.vision_position = positions(config.vision_tokens)
        self.word_position = positions(config.max_words)
        self.layers = stack(rngs)
        self.norm = nnx.RMSNorm(width, rngs=rngs)
        self.head = nnx.Linear(width, config.vocabulary, use_bias=False, rngs=rngs)

    def __call__(
        self, vision: jax.Array, tokens: jax.Array, *, all_positions: bool = False
    ) -> jax.Array:
        """Scores of the next word.

        Words are numbered from the last one backwards and padding is never attended
        to, so padding on the left does not change the answer.

        Args:
          vision: float ``[batch, vision_tokens, vision_features]``.
          tokens: int32 ``[batch, words]``, padded on the left, ``words <= max_words``.
          all_positions: Return the scores at every position instead of the last.

        Returns:
          ``[batch, vocabulary]``, or ``[batch, vision_tokens + words, vocabulary]``.

        Raises:
          ValueError: If a shape does not fit the configuration.
        """
        config = self.config
        expected = (tokens.shape[0], config.vision_tokens, config.vision_features)
        if vision.shape != expected:
            raise ValueError(f"vision must be {expected}, got {vision.shape}")
        words = tokens.shape[-1]
        if tokens.ndim != 2 or not 1 <= words <= config.max_words:
            raise ValueError(
                f"tokens must be [batch, 1..{config.max_words}], got {tokens.shape}"
            )
        v = self.projector(vision) + self.vision_position[...]
        w = self.embed(tokens) + self.word_position[config.max_words - words :]
        x = jnp.concatenate([v, w], axis=1)  # [B, vision + words, width]

        mask = _attention_mask(config.vision_tokens, tokens)
        # `lax.scan` over the split layers rather than `nnx.scan`: the latter refuses
        # parameters that an outer jit, vmap or grad closes over.
        graph, stacked = nnx.split(self.layers)

        def decode(x: jax.Array, layer: nnx.State) -> tuple[jax.Array, None]:
            return nnx.merge(graph, layer)(x, mask), None

        x, _ = jax.lax.scan(decode, x, stacked)
        return self.head(self.norm(x if all_positions else x[:, -1]))


def token_masks(
    tokens: jax.Array, *, vision_tokens: int = VISION_TOKENS
) -> dict[str, jax.Array]:
    """Which modality each position of the decoder's sequence belongs to.

    Padding belongs to neither.

    Args:
      tokens: int ``[batch, words]``, as given to `TinyVLM`.
      vision_tokens: Vision tokens before the words.

    Returns:
      ``vision`` and ``language``, bool ``[batch, vision_tokens + words]``.

    Examples:
      >>> masks = token_masks(tokenize(["is a circle present?"]), vision_tokens=2)
      >>> print(masks["language"].astype(int))
      [[0 0 0 0 0 0 0 1 1 1 1]]
    """
    words = tokens != PAD
    image = jnp.ones((words.shape[0], vision_tokens), bool)
    return {
        "vision": jnp.concatenate([image, jnp.zeros_like(words)], axis=1),
        "language": jnp.concatenate([jnp.zeros_like(image), words], axis=1),
    }


def vision_tokens(params: dict[str, Any], images: jax.Array) -> jax.Array:
    """Vision tokens of images: encoder, 4x4 averages, standardised channels.

    Args:
      params: ``encoder`` (see `efficientnet.features`) and ``tokens``, a dictionary of
        ``mean`` and ``std``, each ``[112]``.
      images: uint8 ``[batch, height, width, 3]``.

    Returns:
      float32 ``[batch, 16, 112]``.

    Examples:
      >>> from jeff.models import pretrained
      >>> image = jnp.zeros((1, 64, 64, 3), jnp.uint8)
      >>> jax.jit(vision_tokens)(pretrained.load_vision(), image).shape
      (1, 16, 112)
    """
    x = efficientnet.features(
        params["encoder"],
        efficientnet.preprocess(images, size=IMAGE_SIZE),
        stage=ENCODER_STAGE,
        depthwise=efficientnet.depthwise_shifts,
    )
    batch, side, _, channels = x.shape
    x = x.reshape(batch, side // 2, 2, side // 2, 2, channels).mean(axis=(2, 4))
    x = x.reshape(batch, VISION_TOKENS, channels)
    return (x - params["tokens"]["mean"]) / params["tokens"]["std"]


def _attention_mask(vision: int, tokens: jax.Array) -> jax.Array:
    """Who may attend to whom: bool ``[batch, 1, position, position]``."""
    position = jnp.arange(vision + tokens.shape[1])
    image = position < vision
    causal = position[None, :] <= position[:, None]
    word = jnp.concatenate(
        [jnp.zeros((tokens.shape[0], vision), bool), tokens != PAD], axis=1
    )
    allowed = image[None, None, :] | (causal[None] & word[:, None, :])
    return allowed[:, None]
