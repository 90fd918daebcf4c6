"""MBQ and the methods it is compared with, all of one signature.

Each takes a program, its parameters and calibration batches, and returns parameters
whose linears are `QTensor`. They differ in how the balance scales that are folded in
before rounding are found, and in how weights are rounded.
"""

from jeff.mbq.methods.gptq import gptq
from jeff.mbq.methods.mbq import awq, mbq, rtn
from jeff.mbq.methods.smoothquant import smoothquant

__all__ = ["awq", "gptq", "mbq", "rtn", "smoothquant"]
