"""Checkpoints in AutoAWQ's "GEMM" layout: 4 bits, what vLLM and transformers load.

A layer ``NAME`` has ``NAME.qweight``, ``NAME.qzeros`` (int32) and ``NAME.scales``
(float16) in place of ``NAME.weight``; ``config.json`` says ``"quant_method": "awq"``.

References:
  AutoAWQ 0.2.9, github casper-hansen/AutoAWQ, awq/models/base.py; transformers 5.23.0,
  ``AwqConfig`` of src/transformers/utils/quantization_config.py.
"""

import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jeff.io import name_patterns, named_weights
from jeff.io.quantized_files import Extra, Units, write_checkpoint
from jeff.io.raw_layers import Entry, Opened, RawLayers
from jeff.io.tensor_files import MAX_SHARD_BYTES
from jeff.quantize import QTensor
from pallas_kernels.interchange import AutoAWQ, from_autoawq, to_autoawq

__all__ = ["METHOD", "open_autoawq", "plan", "write_autoawq"]

METHOD = "awq"
_LAYOUT = "AutoAWQ's layout"
_DTYPES = {"qweight": jnp.int32, "qzeros": jnp.int32, "scales": jnp.float16}


def write_autoawq(
    folder: str | os.PathLike[str],
    tensors: Mapping[str, Any],
    *,
    config: Mapping[str, Any],
    max_shard_bytes: int = MAX_SHARD_BYTES,
    extra: Extra | None = None,
) -> tuple[str, ...]:
    """Writes a checkpoint that AutoAWQ, transformers and vLLM load.

    Codes, scales and zero points are written as they are; symmetric weights get zero
    points of 8. Layers that are not quantized are ``modules_to_not_convert``.

    Args:
      folder: Where to; made if need be.
      tensors: Dense arrays ``[out, in]`` and `jeff.quantize.QTensor` kernels
        ``[in, out]`` by Hugging Face name; one is held at a time if the map makes them
        when asked.
      config: The model's ``config.json``; a ``quantization_config`` in it is replaced.
      max_shard_bytes: Largest size of a file with more than one tensor.
      extra: Text or bytes of further files by name, replaced with the others and before
        ``config.json``.

    Returns:
      Names of the files written.

    Raises:
      ValueError: If a weight cannot be kept in this layout (not 4 bits, floating zero
        points, scales that are not float16, outputs not a multiple of 8, groups of
        several sizes ...): the tensor and the reason are named, and nothing is written.
      TypeError: If a tensor is neither an array nor a `QTensor`.

    Examples:
      >>> import tempfile
      >>> from jeff.io import read_quantized
      >>> from jeff.quantize import QuantConfig, quantize
      >>> config = QuantConfig(bits=4, group_size=32, scale_dtype="float16")
      >>> tensors = {"up.weight": quantize(jnp.eye(64, 16), config)}
      >>> folder = tempfile.mkdtemp()
      >>> write_autoawq(folder, tensors, config={"model_type": "toy"})
      ('model.safetensors', 'config.json')
      >>> read_quantized(folder).tensors["up.weight"]
      QTensor(float32[64, 16], 4 bits, scales float16[2, 16])
    """
    units, settings = plan(tensors)
    return write_checkpoint(
        folder, units, config, settings, max_shard_bytes, extra=extra
    )


def plan(tensors: Mapping[str, Any]) -> tuple[Units, dict[str, Any]]:
    """What would be written; no number is looked at.

    Args:
      tensors: As for `write_autoawq`, or their specs.

    Returns:
      The pieces of each tensor, and the ``quantization_config``.

    Raises:
      ValueError: As `write_autoawq`.
      TypeError: As `write_autoawq`.
    """
    scheme = named_weights.one_of(tensors, _LAYOUT)
    settings = {
        "quant_method": METHOD,
        "bits": scheme.bits,
        "group_size": scheme.group_size,
        "zero_point": True,
        "version": "gemm",
        "modules_to_not_convert": _not_converted(tensors),
    }
    return named_weights.pieces(tensors, _encode), settings


def open_autoawq(raw: RawLayers, settings: Mapping[str, Any]) -> Opened:
    """The tensors of such a checkpoint.

    Args:
      raw: What its files hold.
      settings: Its ``quantization_config``.

    Returns:
      How to make each.

    Raises:
      ValueError: If it is of another version of the layout, or arrays are missing or
        do not fit each other.
    """
    version = str(settings.get("version") or settings.get("format") or "gemm").lower()
    if version != "gemm":
        raise raw.settings_error(f"version is {version!r}; only 'gemm' can be read")
    bits = settings.get("bits", settings.get("w_bit"))
    if bits != 4:
        raise raw.settings_error(f"bits is {bits!r}; this layout has 4")
    entries = {}
    for layer in raw.layers(("qweight", "qzeros", "scales")):
        names = raw.arrays(layer, AutoAWQ._fields)
        shapes = raw.shapes(names, _DTYPES)
        shape = raw.checked(layer, jax.eval_shape, _decode, shapes).shape

        def make(layer=layer, names=names):
            return raw.checked(layer, _decode, raw.read(names))

        entries[f"{layer}.weight"] = Entry(shape[::-1], make)
    return Opened({**raw.dense(), **entries})


def _not_converted(tensors: Mapping[str, Any]) -> list[str]:
    """What is not quantized, for programs that look for these words in names.

    vLLM looks for them anywhere in a name, transformers at its beginning and end, and
    there all parts but the output layer have a ``model.`` before them since 5.0.
    """
    layers = [named_weights.layer_name(n) for n, _ in named_weights.quantized(tensors)]

    def within(tail, layer):
        return tail in layer

    tails = {
        name_patterns.shortest_tail(part, layers, within)
        for part in name_patterns.dense_parts(tensors)
    }
    return sorted(tails | {f"model.{tail}" for tail in tails if "." not in tail})


@jax.jit
def _decode(arrays: Mapping[str, Any]) -> Any:
    """The weight of a layer's arrays."""
    return named_weights.as_weight(from_autoawq(AutoAWQ(**arrays)), bits=4)


@jax.jit
def _encode(q: QTensor) -> dict[str, Any]:
    """The arrays of a layer's weight."""
    if q.bits != 4:
        raise ValueError(f"it has {q.bits} bits; {_LAYOUT} has 4 only")
    named_weights.check_scale(q, _LAYOUT)
    if q.shape[-1] % 8:
        raise ValueError(
            f"it has {q.shape[-1]} outputs; {_LAYOUT} needs a multiple of 8"
        )
    return to_autoawq(named_weights.as_codes(q))._asdict()
