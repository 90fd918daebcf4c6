"""What the decoding benchmark times: which decoders, how packed, how many sequences."""

import dataclasses
import math

from jeff.models.decoder.config import DecoderConfig

__all__ = [
    "DECODERS",
    "PRESETS",
    "SCHEMES",
    "Scheme",
    "Settings",
    "cut",
    "group_size",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scheme:
    """How the matrices of the layers are kept; embedding and head stay dense.

    Attributes:
      bits: Width of the codes; ``None`` keeps them dense.
      grouped: Whether they have zero points and a scale per group; else one scale per
        output channel.
      activation_bits: Width of the codes of activations; ``None`` leaves them alone.
    """

    bits: int | None = None
    grouped: bool = True
    activation_bits: int | None = None


SCHEMES = {
    "dense": Scheme(),
    "w2": Scheme(bits=2),
    "w3": Scheme(bits=3),
    "w4": Scheme(bits=4),
    "w8": Scheme(bits=8),
    "w4a8": Scheme(bits=4, grouped=False, activation_bits=8),
}
"""By name. ``"dense"`` is bfloat16 on a GPU and float32 on a CPU."""

DECODERS = {
    "llava_onevision_7b": DecoderConfig(
        vocabulary=152064,
        width=3584,
        layers=28,
        heads=28,
        kv_heads=4,
        head_dim=128,
        hidden=18944,
        rope_base=1e6,
        qkv_bias=True,
    ),
    "smollm2_135m": DecoderConfig(
        vocabulary=49152,
        width=576,
        layers=30,
        heads=9,
        kv_heads=3,
        head_dim=64,
        hidden=1536,
        rope_base=1e5,
        tied=True,
    ),
    "toy": DecoderConfig(
        vocabulary=64,
        width=32,
        layers=2,
        heads=2,
        kv_heads=1,
        head_dim=16,
        hidden=64,
    ),
}
"""Shapes by name. LLaVA-OneVision-7B decodes with Qwen2-7B."""


def cut(name: str, layers: int) -> tuple[str, DecoderConfig]:
    """A decoder with fewer layers and as many times fewer entries of the vocabulary.

    So the output matrix, which is not packed, keeps its share of the weights.

    Args:
      name: Of `DECODERS`.
      layers: Layers to keep.

    Returns:
      A name that says so, and the sizes.

    Examples:
      >>> name, config = cut("llava_onevision_7b", 1)
      >>> name, config.width, config.vocabulary  # 152064 / 28 is 5431
      ('llava_onevision_7b_1of28', 3584, 5440)
    """
    whole = DECODERS[name]
    vocabulary = math.ceil(whole.vocabulary * layers / whole.layers / 64) * 64
    config = dataclasses.replace(whole, layers=layers, vocabulary=vocabulary)
    return f"{name}_{layers}of{whole.layers}", config


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What is timed, and how.

    Attributes:
      decoders: Names and sizes.
      weights: Packed schemes that decode, of `SCHEMES`, beside the dense one.
      batches: Sequences decoded together.
      context: Tokens in the cache before the first one that is timed.
      prefill: Lengths of prompts.
      prefill_weights: Packed schemes that read prompts, beside the dense one.
      steps: Tokens of every sequence in a timed run.
      repeats: Timed runs of every program.

    Raises:
      ValueError: If a field is empty or out of range, a scheme is unknown, or the
        sizes of a decoder are no multiples of 32.

    Examples:
      >>> Settings(weights=["w5"])
      Traceback (most recent call last):
        ...
      ValueError: weights must be of dense, w2, w3, w4, w8, w4a8, got 'w5'
    """

    decoders: tuple[tuple[str, DecoderConfig], ...] = tuple(
        (name, DECODERS[name]) for name in ("llava_onevision_7b", "smollm2_135m")
    )
    weights: tuple[str, ...] = ("w4", "w3")
    batches: tuple[int, ...] = (1, 2, 4, 8, 16)
    context: int = 512
    prefill: tuple[int, ...] = (512, 1024)
    prefill_weights: tuple[str, ...] = ("w4a8",)
    steps: int = 16
    repeats: int = 20

    def __post_init__(self):
        """Converts lists to tuples and checks the fields."""
        for field in ("weights", "batches", "prefill", "prefill_weights"):
            object.__setattr__(self, field, tuple(dict.fromkeys(getattr(self, field))))
        for field in ("decoders", "weights", "batches"):
            if not getattr(self, field):
                raise ValueError(f"{field} must not be empty")
        for field in ("weights", "prefill_weights"):
            for name in getattr(self, field):
                if name not in SCHEMES:
                    raise ValueError(
                        f"{field} must be of {', '.join(SCHEMES)}, got {name!r}"
                    )
        for field in ("batches", "prefill"):
            for value in getattr(self, field):
                if value < 1:
                    raise ValueError(f"{field} must be positive, got {value}")
        for field in ("context", "steps", "repeats"):
            if getattr(self, field) < 1:
                raise ValueError(
                    f"{field} must be positive, got {getattr(self, field)}"
                )
        for name, config in self.decoders:
            if config.width % 32 or config.hidden % 32:
                raise ValueError(
                    f"decoders: {name} has matrices of {config.width} and "
                    f"{config.hidden} rows, which are not multiples of 32"
                )


def group_size(config: DecoderConfig) -> int:
    """Weights that share a scale: 128, or 64 or 32 where 128 does not divide.

    Args:
      config: Sizes of a decoder.

    Examples:
      >>> [group_size(config) for config in DECODERS.values()]
      [128, 64, 32]
    """
    sizes = config.width, config.heads * config.head_dim, config.hidden
    return next(n for n in (128, 64, 32, 16) if not any(size % n for size in sizes))


PRESETS = {
    "small": Settings(
        decoders=(
            ("smollm2_135m", DECODERS["smollm2_135m"]),
            cut("llava_onevision_7b", 1),
        ),
        batches=(1, 4, 16),
        context=256,
        prefill=(256,),
        steps=2,
        repeats=10,
    ),
    "full": Settings(),
    "smoke": Settings(
        decoders=(("toy", DECODERS["toy"]),),
        weights=("w3",),
        batches=(2,),
        context=8,
        prefill=(8,),
        steps=2,
        repeats=3,
    ),
}
"""``small``: a CPU, minutes; all of SmolLM2-135M and one layer of a 7B decoder.
``full``: both whole, for a GPU of 40 GB. ``smoke``: that everything runs, in seconds;
its times mean nothing."""
