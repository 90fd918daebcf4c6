"""Products with a matrix kept as packed 2-, 3-, 4- or 8-bit codes."""

from pallas_kernels.dequant_matmul.config import Config
from pallas_kernels.dequant_matmul.op import dequant_matmul, resolve

__all__ = ["Config", "dequant_matmul", "resolve"]
