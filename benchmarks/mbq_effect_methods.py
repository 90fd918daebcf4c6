"""What the effect study compares: settings, methods, and the comparisons it is for.

Plain tables, fixed before the first run; docs/mbq_effect.md says why they are these.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from jeff import mbq
from jeff.quantize import QuantConfig

__all__ = [
    "ABLATIONS",
    "METHODS",
    "PLANS",
    "SETTINGS",
    "Method",
    "Setting",
    "comparisons",
    "config",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """Widths of weights and activations.

    Attributes:
      label: What tables call it.
      bits: Width of the weights' codes.
      group_size: Weights that share a scale; ``None`` for one per output channel.
      activation_bits: Width of the activations' codes, if they are quantized.
    """

    label: str
    bits: int
    group_size: int | None = None
    activation_bits: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """A method with its settings.

    Attributes:
      label: What tables call it.
      run: Function of `jeff.mbq`.
      changes: Fields of `jeff.mbq.BalanceConfig` that are not at their defaults.
      skips_output: Whether the attention's output matrix is left out of the scaling.
    """

    label: str
    run: Callable[..., mbq.Quantized]
    changes: tuple[tuple[str, Any], ...] = ()
    skips_output: bool = False


SETTINGS = {
    "w4": Setting(label="W4, groups of 128", bits=4, group_size=128),
    "w3": Setting(label="W3, groups of 128", bits=3, group_size=128),
    "w2": Setting(label="W2, groups of 128", bits=2, group_size=128),
    "w2g32": Setting(label="W2, groups of 32", bits=2, group_size=32),
    "w3g64": Setting(label="W3, groups of 64", bits=3, group_size=64),
    "w2g64": Setting(label="W2, groups of 64", bits=2, group_size=64),
    "w4a8": Setting(label="W4A8, per channel", bits=4, activation_bits=8),
}

_GPTQ = ("rounding", "gptq")
METHODS = {
    "rtn": Method(label="RTN", run=mbq.rtn),
    "smoothquant": Method(label="SmoothQuant", run=mbq.smoothquant),
    "awq": Method(label="AWQ", run=mbq.awq),
    "awq_clip": Method(label="AWQ + clip", run=mbq.awq, changes=(("clip", True),)),
    "gptq": Method(label="GPTQ", run=mbq.gptq),
    "gptq_weighted": Method(
        label="GPTQ, weighted Hessian",
        run=mbq.gptq,
        changes=(("weighted_hessian", True), ("loss", "mse")),
    ),
    "mbq": Method(label="MBQ", run=mbq.mbq),
    "mbq_clip": Method(label="MBQ + clip", run=mbq.mbq, changes=(("clip", True),)),
    "mbq_gptq": Method(label="MBQ + GPTQ", run=mbq.mbq, changes=(_GPTQ,)),
}
ABLATIONS = {
    "mbq_all_tokens": Method(
        label="every token alike, padding included",
        run=mbq.mbq,
        changes=(("reweight", "none"),),
    ),
    "mbq_uniform": Method(
        label="named tokens alike", run=mbq.mbq, changes=(("reweight", "uniform"),)
    ),
    "mbq_answer": Method(
        label="language tokens only", run=mbq.mbq, changes=(("reweight", "answer"),)
    ),
    "mbq_ratio": Method(
        label="ratio without the floor", run=mbq.mbq, changes=(("reweight", "ratio"),)
    ),
    "mbq_mse": Method(
        label="squared instead of absolute error",
        run=mbq.mbq,
        changes=(("loss", "mse"),),
    ),
    "mbq_distort": Method(
        label="candidates see the quantized blocks before",
        run=mbq.mbq,
        changes=(("distort", True),),
    ),
    "mbq_share_mean": Method(
        label="shared scales from the mean over heads",
        run=mbq.mbq,
        changes=(("share", "mean"),),
    ),
    "mbq_no_output": Method(
        label="no scale before the attention's output matrix",
        run=mbq.mbq,
        skips_output=True,
    ),
}

_WEIGHTS_ONLY = tuple(name for name in METHODS if name != "smoothquant")
_TOKENS = ("mbq_all_tokens", "mbq_uniform", "mbq_answer", "mbq_ratio")
_ONE_BY_ONE = (*_TOKENS, "mbq_mse", "mbq_distort")
_SMALL = ("rtn", "awq", "gptq", "mbq", "mbq_gptq")
_AFTERWARDS = ("mbq_mse", "mbq_all_tokens")  # added when the rest had been seen
PLANS = {
    "embedded": {
        "w3": (*_WEIGHTS_ONLY, *_ONE_BY_ONE),
        "w2": (*_WEIGHTS_ONLY, *_ONE_BY_ONE),
        "w4a8": (
            *("rtn", "smoothquant", "awq", "gptq", "gptq_weighted", "mbq", "mbq_gptq"),
        ),
        "w2g32": _WEIGHTS_ONLY,
        "w4": _WEIGHTS_ONLY,
    },
    "smollm2": {
        "w3g64": (*_SMALL, "mbq_share_mean", "mbq_no_output", *_AFTERWARDS),
        "w2g64": _SMALL,
    },
}
"""Methods of each model by setting; ablations are run after everything else."""


def config(setting: Setting, method: Method) -> mbq.BalanceConfig:
    """The settings of one cell.

    Examples:
      >>> config(SETTINGS["w3"], METHODS["mbq_clip"]).clip
      True
    """
    weights = QuantConfig(
        bits=setting.bits,
        group_size=setting.group_size,
        symmetric=setting.activation_bits is not None,
        scale_dtype="float16",
    )
    return mbq.BalanceConfig(
        weights=weights,
        activation_bits=setting.activation_bits,
        **dict(method.changes),
    )


def comparisons(methods: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """The pairs of a setting that are tested, first minus second.

    Examples:
      >>> comparisons(("rtn", "awq", "mbq"))
      (('mbq', 'rtn'), ('mbq', 'awq'))
    """
    pairs = [("mbq", other) for other in ("rtn", "smoothquant", "awq", "gptq")]
    pairs += [("mbq_gptq", "mbq"), ("mbq_gptq", "gptq")]
    return tuple(p for p in pairs if set(p) <= set(methods))
