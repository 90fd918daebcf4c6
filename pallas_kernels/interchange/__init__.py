"""Exact conversion of packed integer weights from and to the layouts of PyTorch users.

Each layout has a tuple of arrays, named as in its files, a function that reads it and
one that writes it. What is between them is `Codes`, plain codes of one matrix::

    AutoAWQ  GPTQ  CompressedTensors        Strided (what the kernels here read)
          \\    |    /                          |
           from_..., to_...        from_strided, to_strided
                \\                             /
                             Codes

Nothing is rounded, and what is read and written again is the same to the bit. Layers
of one shape, stacked, convert under `jax.vmap`.
"""

from pallas_kernels.interchange.autoawq import AutoAWQ, from_autoawq, to_autoawq
from pallas_kernels.interchange.codes import Codes, input_order
from pallas_kernels.interchange.compressed_tensors import (
    CompressedTensors,
    from_compressed_tensors,
    to_compressed_tensors,
)
from pallas_kernels.interchange.gptq import GPTQ, from_gptq, to_gptq
from pallas_kernels.interchange.strided import Strided, from_strided, to_strided

__all__ = [
    "GPTQ",
    "AutoAWQ",
    "Codes",
    "CompressedTensors",
    "Strided",
    "from_autoawq",
    "from_compressed_tensors",
    "from_gptq",
    "from_strided",
    "input_order",
    "to_autoawq",
    "to_compressed_tensors",
    "to_gptq",
    "to_strided",
]
