"""The formats that quantized checkpoints are written in, by name."""

import os
from collections.abc import Mapping
from typing import Any

from jeff.io import autoawq, compressed_tensors, gptq_format
from jeff.io.autoawq import write_autoawq
from jeff.io.compressed_tensors import write_compressed_tensors
from jeff.io.gptq_format import write_gptq
from jeff.io.packed_format import write_quantized
from jeff.io.quantized_files import Extra
from jeff.io.tensor_files import MAX_SHARD_BYTES

__all__ = ["FORMATS", "check_activations", "check_format", "write_format"]

FORMATS = ("jeff", "autoawq", "gptq", "compressed-tensors")
"""Names of the formats."""


def check_format(
    name: str, tensors: Mapping[str, Any], *, activation_bits: int | None = None
) -> None:
    """Refuses a format that could not hold what is about to be made.

    Args:
      name: The format.
      tensors: As for `write_format`; specs of arrays will do (`jax.eval_shape`).
      activation_bits: As for `write_format`.

    Raises:
      ValueError: As `write_format`.
      TypeError: As `write_format`.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jeff.quantize import QuantConfig, quantize
      >>> config = QuantConfig(bits=3, scale_dtype="float16")
      >>> q = jax.eval_shape(lambda: quantize(jnp.ones((32, 8)), config))
      >>> check_format("autoawq", {"up.weight": q})
      Traceback (most recent call last):
        ...
      ValueError: tensor 'up.weight': it has 3 bits; AutoAWQ's layout has 4 only
    """
    check_activations(name, activation_bits)
    plans = {
        "autoawq": autoawq.plan,
        "gptq": gptq_format.plan,
        "compressed-tensors": compressed_tensors.plan,
    }
    if name in plans:  # jeff's own holds everything
        plans[name](tensors)


def check_activations(name: str, activation_bits: int | None) -> None:
    """Refuses an unknown format, and one that cannot tell of quantized activations.

    Args:
      name: The format.
      activation_bits: Width of dynamic activation codes, or ``None``.

    Raises:
      ValueError: If it is either.

    Examples:
      >>> check_activations("gptq", 8)
      Traceback (most recent call last):
        ...
      ValueError: format 'gptq' cannot tell of activations of 8 bits; jeff can
    """
    if name not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}: {name!r}")
    if activation_bits is not None and name not in ("jeff", "compressed-tensors"):
        raise ValueError(
            f"format {name!r} cannot tell of activations of {activation_bits} bits; "
            "jeff can"
        )


def write_format(
    name: str,
    folder: str | os.PathLike[str],
    tensors: Mapping[str, Any],
    *,
    config: Mapping[str, Any],
    metadata: Mapping[str, Any] | None = None,
    activation_bits: int | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    extra: Extra | None = None,
) -> tuple[str, ...]:
    """Writes a checkpoint in one of `FORMATS`.

    Args:
      name: The format.
      folder: Where to; made if need be.
      tensors: Dense arrays ``[out, in]`` and `jeff.quantize.QTensor` kernels
        ``[in, out]`` by Hugging Face name.
      config: The model's ``config.json``.
      metadata: What else to keep; only jeff's format does.
      activation_bits: Width of dynamic activation codes that the model expects.
      max_shard_bytes: Largest size of a file with more than one tensor.
      extra: Text or bytes of further files by name, replaced with the others and before
        ``config.json``.

    Returns:
      Names of the files written.

    Raises:
      ValueError: If the format is unknown, or cannot hold a weight or the activations;
        nothing is written then.
      TypeError: If a tensor is neither an array nor a `QTensor`.
      OSError: If the folder cannot be written to; no file has changed then.

    Examples:
      >>> write_format("zip", "/nowhere", {}, config={})
      Traceback (most recent call last):
        ...
      ValueError: format must be one of jeff, autoawq, gptq, compressed-tensors: 'zip'
    """
    check_activations(name, activation_bits)
    common = {"config": config, "max_shard_bytes": max_shard_bytes, "extra": extra}
    if name == "jeff":
        common |= {"metadata": metadata, "activation_bits": activation_bits}
        return write_quantized(folder, tensors, **common)
    if name == "compressed-tensors":
        common |= {"activation_bits": activation_bits}
        return write_compressed_tensors(folder, tensors, **common)
    writers = {"autoawq": write_autoawq, "gptq": write_gptq}
    return writers[name](folder, tensors, **common)
