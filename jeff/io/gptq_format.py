"""Checkpoints in the layout of GPTQ files: 2, 3, 4 or 8 bits.

A layer ``NAME`` has ``NAME.qweight``, ``NAME.qzeros`` (int32), ``NAME.scales``
(float16) and ``NAME.g_idx`` (int32) in place of ``NAME.weight``; ``config.json`` says
``"quant_method": "gptq"``, and in ``checkpoint_format`` how zero points are stored
(`pallas_kernels.interchange.gptq`).

References:
  AutoGPTQ 0.7.1, github AutoGPTQ/AutoGPTQ, auto_gptq/modeling/_base.py; GPTQModel,
  github ModelCloud/GPTQModel (``dynamic``: layers that are not quantized); transformers
  5.23.0, ``GPTQConfig`` of src/transformers/utils/quantization_config.py; vLLM,
  vllm/model_executor/layers/quantization/auto_gptq.py.
"""

import dataclasses
import functools
import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jeff.io import name_patterns, named_weights
from jeff.io.quantized_files import Extra, Units, write_checkpoint
from jeff.io.raw_layers import Entry, Opened, RawLayers
from jeff.io.tensor_files import MAX_SHARD_BYTES
from jeff.quantize import QTensor
from pallas_kernels.interchange import GPTQ, from_gptq, input_order, to_gptq

__all__ = ["METHOD", "open_gptq", "plan", "write_gptq"]

METHOD = "gptq"
_LAYOUT = "the GPTQ layout"
_NEEDED = ("qweight", "qzeros", "scales")
_DTYPES = {
    "qweight": jnp.int32,
    "qzeros": jnp.int32,
    "scales": jnp.float16,
    "g_idx": jnp.int32,
}


def write_gptq(
    folder: str | os.PathLike[str],
    tensors: Mapping[str, Any],
    *,
    config: Mapping[str, Any],
    checkpoint_format: str = "gptq",
    max_shard_bytes: int = MAX_SHARD_BYTES,
    extra: Extra | None = None,
) -> tuple[str, ...]:
    """Writes a checkpoint that GPTQModel, AutoGPTQ, transformers and vLLM load.

    Codes, scales and zero points are written as they are; symmetric weights get zero
    points of ``2^(bits - 1)``, and if all are, the settings say ``sym``. What is not
    quantized is named in negative patterns of ``dynamic``. vLLM takes 4 and 8 bits,
    symmetric; the other programs take all of this.

    Args:
      folder: Where to; made if need be.
      tensors: Dense arrays ``[out, in]`` and `jeff.quantize.QTensor` kernels
        ``[in, out]`` by Hugging Face name; one is held at a time if the map makes them
        when asked.
      config: The model's ``config.json``; a ``quantization_config`` in it is replaced.
      checkpoint_format: ``"gptq"``, which all programs read, or ``"gptq_v2"``, which
        has no trouble with zero points of 0.
      max_shard_bytes: Largest size of a file with more than one tensor.
      extra: Text or bytes of further files by name, replaced with the others and before
        ``config.json``.

    Returns:
      Names of the files written.

    Raises:
      ValueError: If a weight cannot be kept in this layout (inputs or outputs not
        multiples of 32, floating zero points, scales that are not float16, several
        widths or sizes of groups ...): the tensor and the reason are named, and nothing
        is written. If `checkpoint_format` is neither.
      TypeError: If a tensor is neither an array nor a `QTensor`.

    Examples:
      >>> import tempfile
      >>> from jeff.io import read_quantized
      >>> from jeff.quantize import QuantConfig, quantize
      >>> config = QuantConfig(bits=3, group_size=32, scale_dtype="float16")
      >>> tensors = {"up.weight": quantize(jnp.eye(64, 32), config)}
      >>> folder = tempfile.mkdtemp()
      >>> write_gptq(folder, tensors, config={"model_type": "toy"})
      ('model.safetensors', 'config.json')
      >>> read_quantized(folder).tensors["up.weight"]
      QTensor(float32[64, 32], 3 bits, scales float16[2, 32])
    """
    units, settings = plan(tensors, checkpoint_format)
    return write_checkpoint(
        folder, units, config, settings, max_shard_bytes, extra=extra
    )


def plan(
    tensors: Mapping[str, Any], checkpoint_format: str = "gptq"
) -> tuple[Units, dict[str, Any]]:
    """What would be written; no number is looked at.

    Args:
      tensors: As for `write_gptq`, or their specs.
      checkpoint_format: As for `write_gptq`.

    Returns:
      The pieces of each tensor, and the ``quantization_config``.

    Raises:
      ValueError: As `write_gptq`.
      TypeError: As `write_gptq`.
    """
    if checkpoint_format not in ("gptq", "gptq_v2"):
        raise ValueError(
            f"checkpoint_format must be 'gptq' or 'gptq_v2', got {checkpoint_format!r}"
        )
    scheme = named_weights.one_of(tensors, _LAYOUT)
    parts = name_patterns.dense_parts(tensors)
    layers = [named_weights.layer_name(n) for n, _ in named_weights.quantized(tensors)]
    skipped = name_patterns.skipped(parts, layers)
    settings = {
        "quant_method": METHOD,
        "bits": scheme.bits,
        "group_size": scheme.group_size,
        "desc_act": False,
        "sym": scheme.symmetric,
        "lm_head": name_patterns.has_head(layers),
        "checkpoint_format": checkpoint_format,
        "dynamic": {f"-:{pattern}": {} for pattern in skipped},
    }

    encode = functools.partial(_encode, checkpoint_format=checkpoint_format)
    return named_weights.pieces(tensors, encode), settings


def open_gptq(raw: RawLayers, settings: Mapping[str, Any]) -> Opened:
    """The tensors of such a checkpoint.

    A weight whose groups are not of neighboring inputs (``desc_act``) is decoded,
    since a `QTensor` has no order of inputs; a note says so. Zero points of a symmetric
    checkpoint are those of symmetric codes, and not stored again.

    Args:
      raw: What its files hold.
      settings: Its ``quantization_config``.

    Returns:
      How to make each tensor.

    Raises:
      ValueError: If a setting is missing or unknown, or arrays are missing or do not
        fit each other.
    """
    bits = settings.get("bits")
    if bits not in (2, 3, 4, 8):
        raise raw.settings_error(f"bits is {bits!r}; must be 2, 3, 4 or 8")
    form = settings.get("checkpoint_format") or settings.get("format") or "gptq"
    if form not in ("gptq", "gptq_v2"):
        raise raw.settings_error(
            f"checkpoint_format is {form!r}; only 'gptq' and 'gptq_v2' can be read"
        )
    symmetric = settings.get("sym") is True
    entries, notes = {}, []
    for layer in raw.layers(_NEEDED):
        names = raw.arrays(layer, _NEEDED, ("g_idx",))
        g_idx = raw.tensors[names.pop("g_idx")] if "g_idx" in names else None
        decode = functools.partial(_decode, bits=bits, checkpoint_format=form)
        shapes = raw.shapes(names, _DTYPES)
        q = raw.checked(layer, jax.eval_shape, decode, shapes)
        groups = q.scale.shape[0]
        if raw.checked(layer, _order, g_idx, q.shape[0], groups) is not None:
            decode = functools.partial(
                _ordered, g_idx=g_idx, bits=bits, checkpoint_format=form
            )
            notes.append(
                f"{layer}: its {groups} groups are not of neighboring inputs "
                "(desc_act); decoded to float32, exactly"
            )

        def make(layer=layer, names=names, decode=decode):
            weight = raw.checked(layer, decode, raw.read(names))
            return _symmetric(weight) if symmetric else weight

        entries[f"{layer}.weight"] = Entry(q.shape[::-1], make)
    return Opened({**raw.dense(), **entries}, notes=tuple(notes))


@functools.partial(jax.jit, static_argnames=("bits", "checkpoint_format"))
def _decode(
    arrays: Mapping[str, Any], *, bits: int, checkpoint_format: str
) -> "QTensor | np.ndarray":
    """The weight of a layer's arrays, whose groups are in order."""
    codes = from_gptq(GPTQ(**arrays), bits=bits, checkpoint_format=checkpoint_format)
    return named_weights.as_weight(codes, bits=bits)


def _ordered(
    arrays: Mapping[str, Any], *, g_idx: Any, bits: int, checkpoint_format: str
) -> "QTensor | np.ndarray":
    """The dense weight of a layer's arrays, whose groups are not in order."""
    packed = GPTQ(**arrays, g_idx=g_idx)
    codes = from_gptq(packed, bits=bits, checkpoint_format=checkpoint_format)
    return named_weights.as_weight(codes, bits=bits)


def _order(g_idx: np.ndarray | None, size: int, groups: int) -> np.ndarray | None:
    """The order of inputs, if it is not their own."""
    if g_idx is None:
        return None
    if g_idx.shape != (size,):
        raise ValueError(f"g_idx has shape {g_idx.shape}, expected {(size,)}")
    return input_order(g_idx, groups)


@functools.partial(jax.jit, static_argnames="checkpoint_format")
def _encode(q: QTensor, *, checkpoint_format: str) -> dict[str, Any]:
    """The arrays of a layer's weight."""
    named_weights.check_scale(q, _LAYOUT)
    if q.shape[0] % 32 or q.shape[-1] % 32:
        raise ValueError(
            f"it has {q.shape[0]} inputs and {q.shape[-1]} outputs; {_LAYOUT} needs "
            "multiples of 32"
        )
    codes = named_weights.as_codes(q)
    packed = to_gptq(codes, bits=q.bits, checkpoint_format=checkpoint_format)
    return packed._asdict()


def _symmetric(weight: "QTensor | np.ndarray") -> "QTensor | np.ndarray":
    """The weight without zero points, if they are those of symmetric codes."""
    if not isinstance(weight, QTensor) or weight.zero is None:
        return weight
    middle = bool((weight.zero == 2 ** (weight.bits - 1)).all())
    # Files of 3 bits with other zero points in them were written with a defect that
    # pallas_kernels.interchange.gptq tells of; the weights are symmetric all the same.
    if middle or weight.bits == 3:
        return dataclasses.replace(weight, zero=None)
    return weight
