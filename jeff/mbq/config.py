"""Settings of the balanced quantization and its baselines, as one hashable value."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

from jeff.quantize import QuantConfig, checks

__all__ = ["BalanceConfig", "check_used"]

_WORDS = {
    "loss": ("mae", "mse"),
    "reweight": ("ratio_floor", "ratio", "uniform", "answer", "tokens", "none"),
    "share": ("max", "mean"),
    "rounding": ("nearest", "gptq"),
}
_FLAGS = ("act_order", "weighted_hessian", "clip", "distort")
_COUNTS = ("grid", "clip_tokens", "activation_bits")
_CLIP_TOKENS = 512


@dataclasses.dataclass(frozen=True, kw_only=True)
class BalanceConfig:
    """How weights (and activations) are quantized and scales are searched.

    Attributes:
      weights: The weight quantizer. With `activation_bits` it is the symmetric
        per-channel one of the paper's weight-activation mode.
      activation_bits: Width of the per-token dynamic symmetric activation codes;
        ``None`` leaves activations alone.
      loss: ``"mae"`` or ``"mse"``; what MBQ judges candidates by (AWQ: always
        ``"mse"``), and so how tokens average where limits and Hessians weigh them.
      reweight: How tokens weigh in the loss of MBQ: ``"ratio_floor"`` (the program's:
        vision by the sensitivity ratio, raised to the median over layers),
        ``"ratio"`` (the paper's), ``"uniform"`` (all named tokens alike),
        ``"answer"`` (the reference modality alone), ``"tokens"`` (what `Batch.weights`
        says of each token, such as its own gradient) or ``"none"`` (every token,
        padding included).
      reference: The modality that weighs 1.
      grid: Number of exponents tried.
      share: How the magnitudes of channels that must share a scale are reduced,
        ``"max"`` or ``"mean"`` (grouped-query attention).
      smoothing: Exponent of SmoothQuant.
      clip: Whether AWQ and MBQ also search, once a block's scales are folded, the range
        beyond which each group of weights is clipped. AWQ as published does; it is off
        by default so that methods differ in their scales alone, and as MBQ's program
        has no such search.
      clip_tokens: About how many calibration tokens (of each modality, if tokens are
        weighed) that search looks at.
      distort: Whether candidates of AWQ and MBQ see what the blocks before put out once
        they are quantized; what they are compared with stays the clean output.
      rounding: ``"nearest"``, or ``"gptq"``: the weights that the scales are folded
        into are rounded by GPTQ, on what the quantized blocks before put out. The
        method `gptq` always does.
      damping: Part of the mean diagonal of GPTQ's Hessians that is added to it.
      act_order: Whether GPTQ rounds channels by descending diagonal.
      weighted_hessian: Whether tokens weigh in GPTQ's Hessians as `reweight` and `loss`
        say; else all alike, as published.
      fold_tolerance: Largest relative change of a block's output by folding a trial
        scale of powers of two, which rounds nothing in any precision; a fold that
        changes more is wrong: it is left out and reported.

    Raises:
      TypeError: If `weights` is not a `QuantConfig`, or a field is of another type.
      ValueError: If a field is out of range.

    Examples:
      >>> BalanceConfig(weights=QuantConfig(bits=3, group_size=64)).grid
      20
    """

    weights: QuantConfig
    activation_bits: int | None = None
    loss: Literal["mae", "mse"] = "mae"
    reweight: Literal["ratio_floor", "ratio", "uniform", "answer", "tokens", "none"] = (
        "ratio_floor"
    )
    reference: str = "language"
    grid: int = 20
    share: Literal["max", "mean"] = "max"
    smoothing: float = 0.5
    clip: bool = False
    clip_tokens: int = _CLIP_TOKENS
    distort: bool = False
    rounding: Literal["nearest", "gptq"] = "nearest"
    damping: float = 0.01
    act_order: bool = False
    weighted_hessian: bool = False
    fold_tolerance: float = 1e-6

    def __post_init__(self):
        """Checks the fields."""
        if not isinstance(self.weights, QuantConfig):
            raise TypeError(f"weights must be a QuantConfig, got {self.weights!r}")
        for name in ("smoothing", "damping", "fold_tolerance"):
            object.__setattr__(self, name, checks.number(getattr(self, name), name))
        for name in _COUNTS:
            value = getattr(self, name)
            if name != "activation_bits" or value is not None:
                object.__setattr__(self, name, checks.integer(value, name))
        for name in _FLAGS:
            checks.flag(getattr(self, name), name)
        for name, known in _WORDS.items():
            checks.word(getattr(self, name), name, known)
        if not isinstance(self.reference, str):
            raise TypeError(f"reference must be a modality, got {self.reference!r}")
        if self.activation_bits is not None and not 2 <= self.activation_bits <= 8:
            raise ValueError(
                f"activation_bits must be in [2, 8], got {self.activation_bits}"
            )
        for name in ("grid", "clip_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name} must be at least 1, got {getattr(self, name)}"
                )
        if self.clip_tokens != _CLIP_TOKENS and not self.clip:
            raise ValueError(
                f"clip_tokens={self.clip_tokens} has no effect without clip=True"
            )
        if self.weighted_hessian and self.reweight == "none":
            raise ValueError(
                'weighted_hessian=True has no effect with reweight="none", which '
                "weighs every token alike"
            )
        if self.clip and self.weights.per_tensor:
            raise ValueError(
                "clip searches per output channel, but weights has one scale per tensor"
            )
        if not 0.0 <= self.smoothing <= 1.0:
            raise ValueError(f"smoothing must be in [0, 1], got {self.smoothing}")
        if not 0.0 <= self.damping < float("inf"):
            raise ValueError(
                f"damping must be finite and not negative, got {self.damping}"
            )
        if not self.fold_tolerance > 0:
            raise ValueError(f"fold_tolerance must be > 0, got {self.fold_tolerance}")


def check_used(config: BalanceConfig, method: str, unused: Sequence[str]) -> None:
    """Refuses settings that a method would not look at.

    Args:
      config: The settings.
      method: Name of the method.
      unused: Fields that must have their default.

    Raises:
      ValueError: If one has not; the field is named.

    Examples:
      >>> check_used(
      ...     BalanceConfig(weights=QuantConfig(bits=3), clip=True), "rtn", ["clip"]
      ... )
      Traceback (most recent call last):
        ...
      ValueError: config.clip=True has no effect in rtn
    """
    defaults = {f.name: f.default for f in dataclasses.fields(config)}
    for name in unused:
        value = getattr(config, name)
        if value != defaults[name]:
            raise ValueError(f"config.{name}={value!r} has no effect in {method}")
