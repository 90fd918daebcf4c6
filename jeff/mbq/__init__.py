"""MBQ: modality-balanced quantization of vision-language models (arXiv 2412.19509)."""

from jeff.mbq.blocks.store import BlockStore
from jeff.mbq.calibration.batches import Batch, check_batches
from jeff.mbq.calibration.sensitivity import sensitivity
from jeff.mbq.calibration.token_weights import (
    floored,
    modality_gradient,
    modality_ratio,
    token_weights,
)
from jeff.mbq.clip.search import clip_search, clip_weight
from jeff.mbq.config import BalanceConfig
from jeff.mbq.gptq.hessian import activation_hessian
from jeff.mbq.gptq.rounding import GPTQCodes, gptq_codes
from jeff.mbq.gptq.weight import gptq_quantize
from jeff.mbq.groups.infer import Group, infer_groups
from jeff.mbq.groups.spec import GroupSpec
from jeff.mbq.methods import awq, gptq, mbq, rtn, smoothquant
from jeff.mbq.report import ClipReport, GroupReport, Quantized, Report
from jeff.mbq.rounding.activations import quantized_activations
from jeff.mbq.scales.awq import awq_scale, weight_magnitude
from jeff.mbq.scales.balance import activation_magnitude, balance_grid, balance_scale
from jeff.mbq.scales.objective import mae, mse
from jeff.mbq.scales.smoothquant import smoothquant_scale

__all__ = [
    "BalanceConfig",
    "Batch",
    "BlockStore",
    "ClipReport",
    "GPTQCodes",
    "Group",
    "GroupReport",
    "GroupSpec",
    "Quantized",
    "Report",
    "activation_hessian",
    "activation_magnitude",
    "awq",
    "awq_scale",
    "balance_grid",
    "balance_scale",
    "check_batches",
    "clip_search",
    "clip_weight",
    "floored",
    "gptq",
    "gptq_codes",
    "gptq_quantize",
    "infer_groups",
    "mae",
    "mbq",
    "modality_gradient",
    "modality_ratio",
    "mse",
    "quantized_activations",
    "rtn",
    "sensitivity",
    "smoothquant",
    "smoothquant_scale",
    "token_weights",
    "weight_magnitude",
]
