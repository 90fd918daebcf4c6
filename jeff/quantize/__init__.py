"""Weights in 2, 3, 4 or 8 bits: quantizers, packed storage, and products with it."""

from jeff.quantize.affine import (
    affine_parameters,
    decode,
    encode,
    one_sided_groups,
)
from jeff.quantize.config import QuantConfig
from jeff.quantize.fake_quant import fake_quant, fake_quant_activations
from jeff.quantize.groups import group_shape
from jeff.quantize.integer_dot import integer_dot, integer_dots
from jeff.quantize.matmul import fused, matmul
from jeff.quantize.qtensor import QTensor, quantize

__all__ = [
    "QTensor",
    "QuantConfig",
    "affine_parameters",
    "decode",
    "encode",
    "fake_quant",
    "fake_quant_activations",
    "fused",
    "group_shape",
    "integer_dot",
    "integer_dots",
    "matmul",
    "one_sided_groups",
    "quantize",
]
