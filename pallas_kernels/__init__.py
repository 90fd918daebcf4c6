"""Kernels on plain arrays; they know nothing of models, parameter trees or jeff.

`bits` is the one home of the packed layouts that the kernels read.
"""

from pallas_kernels import bits

__all__ = ["bits"]
