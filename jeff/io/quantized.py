"""Reading quantized checkpoints of any format that is known."""

import os
from typing import Any, NamedTuple

from jeff.io import autoawq, compressed_tensors, gptq_format, packed_format
from jeff.io.checkpoint import read_checkpoint
from jeff.io.raw_layers import NamedTensors, RawLayers

__all__ = ["QuantizedCheckpoint", "read_quantized"]


class QuantizedCheckpoint(NamedTuple):
    """What a folder of a quantized model holds.

    Attributes:
      config: Content of ``config.json`` without its ``quantization_config``.
      tensors: Named tensor map: dense arrays ``[out, in]`` and, for quantized layers,
        `jeff.quantize.QTensor` kernels ``[in, out]``; read when looked up.
      method: ``"jeff"``, ``"awq"``, ``"gptq"`` or ``"compressed-tensors"``.
      activation_bits: Width of the dynamic per-token activation codes that the model
        was quantized for; ``None`` if activations stay as they are.
      metadata: What was given to `jeff.io.write_quantized`; empty for other formats.
      notes: Lines about tensors that are not held as they were stored.
    """

    config: dict[str, Any]
    tensors: NamedTensors
    method: str
    activation_bits: int | None
    metadata: dict[str, Any]
    notes: tuple[str, ...]


def read_quantized(folder: str | os.PathLike[str]) -> QuantizedCheckpoint:
    """Opens a quantized checkpoint of any format that is known.

    The format is what ``quant_method`` of the ``quantization_config`` in
    ``config.json`` says: jeff's own, AutoAWQ ("GEMM", 4 bits), GPTQ (both checkpoint
    formats; 2, 3, 4 and 8 bits) or compressed-tensors ("pack-quantized" and
    "int-quantized", 2 to 8 bits). Names and shapes of all arrays are checked here;
    their numbers are read when a tensor is looked up.

    A weight of which the groups are not of neighboring inputs (GPTQ with ``desc_act``)
    is decoded to float32, since a `QTensor` has no order of inputs; `notes` says so.

    Args:
      folder: Holds ``config.json`` and ``model.safetensors``, or several files and
        their index.

    Returns:
      The model's configuration and its tensors.

    Raises:
      ValueError: If a file is missing, cut short or corrupt, the model is not
        quantized, its format or the version of that is not known, or an array is
        missing, extra or does not fit; file and tensor are named.

    Examples:
      >>> read_quantized("/nowhere")
      Traceback (most recent call last):
        ...
      ValueError: there is no folder /nowhere
    """
    checkpoint = read_checkpoint(folder)
    raw = RawLayers(folder, checkpoint.tensors)
    config = dict(checkpoint.config)
    settings = config.pop("quantization_config", None)
    if settings is None:
        raise raw.settings_error("is missing, so the model is not quantized")
    if not isinstance(settings, dict):
        raise raw.settings_error(f"must be an object, got {settings!r}")
    method = settings.get("quant_method")
    if method not in _OPENERS:
        known = ", ".join(sorted(_OPENERS))
        raise raw.settings_error(f"quant_method is {method!r}; known are {known}")
    opened = _OPENERS[method](raw, settings)
    own = method == packed_format.METHOD
    return QuantizedCheckpoint(
        config=config,
        tensors=NamedTensors(opened.entries),
        method=method,
        activation_bits=opened.activation_bits,
        metadata=dict(settings.get("metadata") or {}) if own else {},
        notes=opened.notes,
    )


_OPENERS = {
    packed_format.METHOD: packed_format.open_packed,
    autoawq.METHOD: autoawq.open_autoawq,
    gptq_format.METHOD: gptq_format.open_gptq,
    compressed_tensors.METHOD: compressed_tensors.open_compressed_tensors,
}
