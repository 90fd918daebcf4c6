"""Kernels on plain arrays; they know nothing of models, parameter trees or jeff.

`bits` is the one home of the packed layouts that the kernels read, `dequant_matmul` the
product with a packed matrix, `interchange` the way from and to the layouts of AutoAWQ,
GPTQ and compressed-tensors.
"""

from pallas_kernels import bits, dequant_matmul, interchange

__all__ = ["bits", "dequant_matmul", "interchange"]
