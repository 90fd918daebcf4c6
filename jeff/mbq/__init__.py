"""MBQ: modality-balanced quantization of vision-language models (arXiv 2412.19509)."""

from jeff.mbq.activations import quantized_activations
from jeff.mbq.awq_scale import awq_scale, weight_magnitude
from jeff.mbq.block_store import BlockStore
from jeff.mbq.calibration import Batch, check_batches
from jeff.mbq.clip import clip_search, clip_weight
from jeff.mbq.config import BalanceConfig
from jeff.mbq.gptq_method import gptq
from jeff.mbq.gptq_rounding import GPTQCodes, gptq_codes
from jeff.mbq.gptq_weight import gptq_quantize
from jeff.mbq.group_spec import GroupSpec
from jeff.mbq.groups import Group, infer_groups
from jeff.mbq.hessian import activation_hessian
from jeff.mbq.methods import awq, mbq, rtn, smoothquant
from jeff.mbq.objective import mae, mse
from jeff.mbq.report import ClipReport, GroupReport, Quantized, Report
from jeff.mbq.scales import activation_magnitude, balance_grid, balance_scale
from jeff.mbq.sensitivity import sensitivity
from jeff.mbq.smoothquant_scale import smoothquant_scale
from jeff.mbq.token_weights import (
    floored,
    modality_gradient,
    modality_ratio,
    token_weights,
)

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
