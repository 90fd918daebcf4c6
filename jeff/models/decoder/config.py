"""Sizes of a decoder, and what it reads: a padded batch of embeddings."""

import dataclasses
from typing import NamedTuple

import jax

__all__ = ["DecoderConfig", "Sequence"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Sizes of a pre-norm decoder with rotary positions and a gated MLP.

    Attributes:
      vocabulary: Entries of the vocabulary.
      width: Channels of the residual stream.
      layers: Decoder layers.
      heads: Query heads.
      kv_heads: Key and value heads, each shared by ``heads / kv_heads`` query heads.
      head_dim: Channels of a head, even.
      hidden: Channels inside the gated MLP.
      norm_eps: Added to the mean square in RMS norms.
      rope_base: Base of the rotary angles, ``base ** (-2 i / head_dim)``.
      rope_sections: Of the ``head_dim / 2`` angles, how many follow the temporal, the
        vertical and the horizontal position (M-RoPE); ``None`` has one position only.
      qkv_bias: Whether the query, key and value projections have biases.
      tied: Whether the output matrix is the embedding.

    Raises:
      ValueError: If a size is no positive int, `kv_heads` does not divide `heads`,
        `head_dim` is odd, or the sections do not add up to half of it.

    Examples:
      >>> sizes = dict(vocabulary=9, width=8, layers=2, heads=4, head_dim=2, hidden=8)
      >>> DecoderConfig(kv_heads=2, **sizes).rope_base
      10000.0
      >>> DecoderConfig(kv_heads=3, **sizes)
      Traceback (most recent call last):
        ...
      ValueError: kv_heads must divide heads 4: 3
    """

    vocabulary: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    norm_eps: float = 1e-6
    rope_base: float = 10000.0
    rope_sections: tuple[int, ...] | None = None
    qkv_bias: bool = False
    tied: bool = False

    def __post_init__(self) -> None:
        """Checks the sizes."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is int and (type(value) is not int or value < 1):
                raise ValueError(f"{field.name} must be a positive int, got {value!r}")
            if field.type is bool and type(value) is not bool:
                raise ValueError(f"{field.name} must be a bool, got {value!r}")
        for name in ("norm_eps", "rope_base"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 < value < float("inf"):
                raise ValueError(f"{name} must be a positive number, got {value!r}")
        if self.heads % self.kv_heads:
            raise ValueError(
                f"kv_heads must divide heads {self.heads}: {self.kv_heads}"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim must be even, got {self.head_dim}")
        if self.rope_sections is not None:
            object.__setattr__(self, "rope_sections", tuple(self.rope_sections))
            sections = self.rope_sections
            if len(sections) != 3 or sum(sections) != self.head_dim // 2:
                raise ValueError(
                    "rope_sections must be three numbers that add up to half of "
                    f"head_dim {self.head_dim}, got {sections}"
                )


class Sequence(NamedTuple):
    """A padded batch, ready for the first layer.

    Attributes:
      x: Embeddings, floating ``[batch, slots, width]``.
      positions: Rotary positions, int32 ``[batch, slots]``; with M-RoPE they may be
        ``[3, batch, slots]``: temporal, vertical, horizontal.
      valid: bool ``[batch, slots]``, false at padding; padding may stand on either
        side, and `prefill` wants it on the left.
    """

    x: jax.Array
    positions: jax.Array
    valid: jax.Array


def check_sequence(sequence: Sequence, config: DecoderConfig) -> None:
    """Checks shapes before anything is traced further.

    Args:
      sequence: What a decoder is to read.
      config: Its sizes.

    Raises:
      ValueError: If a shape does not fit the configuration or the other shapes.
      TypeError: If `valid` is not bool or `positions` not of integers.
    """
    x, positions, valid = sequence
    if x.ndim != 3 or x.shape[-1] != config.width or 0 in x.shape:
        raise ValueError(
            f"x must be [batch, slots, {config.width}] and not empty, got {x.shape}"
        )
    shapes = [x.shape[:2]]
    if config.rope_sections is not None:
        shapes.append((3, *x.shape[:2]))
    if positions.shape not in shapes:
        expected = " or ".join(map(str, shapes))
        raise ValueError(f"positions must be {expected}, got {positions.shape}")
    if valid.shape != x.shape[:2]:
        raise ValueError(f"valid must be {x.shape[:2]}, got {valid.shape}")
    if valid.dtype != bool:
        raise TypeError(f"valid must be bool, got {valid.dtype}")
    if positions.dtype.kind not in "iu":
        raise TypeError(f"positions must be integers, got {positions.dtype}")
