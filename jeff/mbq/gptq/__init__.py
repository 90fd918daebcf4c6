"""GPTQ on arrays: Hessians, the recursion over channels, weights of any axes.

The method for whole programs is `jeff.mbq.methods.gptq`.
"""

__all__ = []
