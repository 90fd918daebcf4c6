"""The GPUs that the kernels are written for: H100 and H200, compute capability 9.0."""

import jax

__all__ = ["MULTIPROCESSORS", "SHARED_MEMORY", "is_hopper"]

SHARED_MEMORY = 227 * 1024
"""Bytes of shared memory that one block may use on compute capability 9.0 (NVIDIA,
CUDA C++ Programming Guide, table of technical specifications)."""

MULTIPROCESSORS = 132
"""Multiprocessors of an H100 or H200 SXM (NVIDIA H100 white paper)."""


def is_hopper() -> bool:
    """Whether programs run on a GPU of compute capability 9.0."""
    if jax.default_backend() != "gpu":
        return False
    return str(getattr(jax.devices()[0], "compute_capability", None)) == "9.0"
