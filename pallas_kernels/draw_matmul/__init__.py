"""Products with Gaussian matrices that are drawn on the fly and never stored."""

from pallas_kernels.draw_matmul.config import Config
from pallas_kernels.draw_matmul.op import METHODS, draw_matmul, resolve

__all__ = ["METHODS", "Config", "draw_matmul", "resolve"]
