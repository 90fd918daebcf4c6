"""Checkpoints in the two layouts of compressed-tensors for integer weights.

``"pack-quantized"`` has ``NAME.weight_packed`` (int32), ``NAME.weight_scale``,
``NAME.weight_shape`` and, unless codes are symmetric, ``NAME.weight_zero_point`` in
place of ``NAME.weight``. ``"int-quantized"``, for programs that multiply integers,
keeps the signed codes as they are: ``NAME.weight`` is int8 ``[out, in]``, beside
``NAME.weight_scale`` and perhaps an int8 ``NAME.weight_zero_point``.

References:
  compressed-tensors 0.20.0, github vllm-project/compressed-tensors,
  src/compressed_tensors/compressors/{pack_quantized,naive_quantized}/base.py; vLLM,
  vllm/model_executor/layers/quantization/compressed_tensors/schemes.
"""

import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jeff.io import name_patterns, named_weights
from jeff.io.compressed_tensors_settings import (
    INT_QUANTIZED,
    METHOD,
    PACK_QUANTIZED,
    LayerScheme,
    Schemes,
    settings_of,
)
from jeff.io.quantized_files import Extra, Units, write_checkpoint
from jeff.io.raw_layers import Entry, Opened, RawLayers
from jeff.io.signed_codes import check_signed, signed, unsigned
from jeff.io.tensor_files import MAX_SHARD_BYTES
from jeff.quantize import QTensor
from pallas_kernels.interchange import (
    Codes,
    CompressedTensors,
    from_compressed_tensors,
    input_order,
    to_compressed_tensors,
)

__all__ = [
    "METHOD",
    "open_compressed_tensors",
    "plan",
    "write_compressed_tensors",
]

_PACKED = ("weight_packed", "weight_scale", "weight_shape")


def write_compressed_tensors(
    folder: str | os.PathLike[str],
    tensors: Mapping[str, Any],
    *,
    config: Mapping[str, Any],
    activation_bits: int | None = None,
    layout: str | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    extra: Extra | None = None,
) -> tuple[str, ...]:
    """Writes a checkpoint that compressed-tensors, transformers and vLLM load.

    Codes, scales (of any dtype) and zero points are written as they are. Layers of
    several widths or sizes of groups get a group of the settings each. Streams of 3
    bits are dense, which compressed-tensors reads from 0.18 on.

    Args:
      folder: Where to; made if need be.
      tensors: Dense arrays ``[out, in]`` and `jeff.quantize.QTensor` kernels
        ``[in, out]`` by Hugging Face name; one is held at a time if the map makes them
        when asked.
      config: The model's ``config.json``; a ``quantization_config`` in it is replaced.
      activation_bits: Width of dynamic, symmetric, per-token activation codes that the
        model expects; ``None`` if its activations stay as they are.
      layout: ``"pack-quantized"`` or ``"int-quantized"``; ``None`` takes the second
        one if there are `activation_bits`, which is what vLLM expects.
      max_shard_bytes: Largest size of a file with more than one tensor.
      extra: Text or bytes of further files by name, replaced with the others and before
        ``config.json``.

    Returns:
      Names of the files written.

    Raises:
      ValueError: If a weight cannot be kept in this layout (floating zero points,
        groups along the outputs ...): the tensor and the reason are named, and nothing
        is written. If `layout` is neither.
      TypeError: If a tensor is neither an array nor a `QTensor`.

    Examples:
      >>> import tempfile
      >>> from jeff.io import read_quantized
      >>> from jeff.quantize import QuantConfig, quantize
      >>> config = QuantConfig(bits=3, group_size=32, symmetric=True)
      >>> tensors = {"up.weight": quantize(jnp.eye(64, 16), config)}
      >>> folder = tempfile.mkdtemp()
      >>> write_compressed_tensors(folder, tensors, config={"model_type": "toy"})
      ('model.safetensors', 'config.json')
      >>> read_quantized(folder).tensors["up.weight"]
      QTensor(float32[64, 16], 3 bits, scales float32[2, 16])
    """
    units, settings = plan(tensors, activation_bits, layout)
    return write_checkpoint(
        folder, units, config, settings, max_shard_bytes, extra=extra
    )


def plan(
    tensors: Mapping[str, Any],
    activation_bits: int | None = None,
    layout: str | None = None,
) -> tuple[Units, dict[str, Any]]:
    """What would be written; no number is looked at.

    Args:
      tensors: As for `write_compressed_tensors`, or their specs.
      activation_bits: As for `write_compressed_tensors`.
      layout: As for `write_compressed_tensors`.

    Returns:
      The pieces of each tensor, and the ``quantization_config``.

    Raises:
      ValueError: As `write_compressed_tensors`.
      TypeError: As `write_compressed_tensors`.
    """
    if layout is None:
        layout = PACK_QUANTIZED if activation_bits is None else INT_QUANTIZED
    if layout not in (PACK_QUANTIZED, INT_QUANTIZED):
        raise ValueError(
            f"layout must be {PACK_QUANTIZED!r} or {INT_QUANTIZED!r}, got {layout!r}"
        )
    packed = layout == PACK_QUANTIZED
    units = named_weights.pieces(
        tensors,
        _encode_packed if packed else _encode_integers,
        _constants if packed else None,
    )
    schemes = {
        named_weights.layer_name(name): named_weights.scheme(q)
        for name, q in named_weights.quantized(tensors)
    }
    settings = settings_of(
        schemes, name_patterns.dense_parts(tensors), layout, activation_bits
    )
    return units, settings


def open_compressed_tensors(raw: RawLayers, settings: Mapping[str, Any]) -> Opened:
    """The tensors of such a checkpoint.

    Args:
      raw: What its files hold.
      settings: Its ``quantization_config``.

    Returns:
      How to make each; codes of 5, 6 and 7 bits are held in 8.

    Raises:
      ValueError: If the settings are of another layout or name what cannot be read, or
        arrays are missing or do not fit each other.
    """
    schemes = Schemes(raw, settings)
    entries, notes = {}, []
    for layer in raw.layers(("weight_packed", "weight_scale")):
        scheme = schemes.of(layer)
        opener = _packed if scheme.layout == PACK_QUANTIZED else _integers
        entries[f"{layer}.weight"], told = opener(raw, layer, scheme)
        notes += told
    for name in raw.unused(_PACKED + ("weight_zero_point", "weight_g_idx")):
        raise raw.error(name, "is extra: its layer has no weight_scale")
    return Opened({**raw.dense(), **entries}, schemes.activation_bits, tuple(notes))


def _packed(raw: RawLayers, layer: str, scheme: LayerScheme) -> tuple[Entry, list[str]]:
    """One layer of "pack-quantized", and notes about it."""
    zero = () if scheme.symmetric else ("weight_zero_point",)
    names = raw.arrays(layer, _PACKED + zero, ("weight_g_idx",))
    # These two are small and decide about shapes: they are read at once.
    shape = raw.checked(layer, _shape, raw.tensors[names.pop("weight_shape")])
    g_idx = raw.tensors[names.pop("weight_g_idx")] if "weight_g_idx" in names else None
    words = dict.fromkeys(("weight_packed", "weight_zero_point"), jnp.int32)
    shapes = raw.shapes(names, {**words, "weight_scale": jnp.float32})
    padded = scheme.padded
    if padded is None:  # nothing says so: what fits, dense streams if both do
        decode = functools.partial(_decode, shape=shape, bits=scheme.bits, padded=False)
        padded = not _fits(decode, shapes)
    facts = {"shape": shape, "bits": scheme.bits, "padded": padded}
    decode = functools.partial(_decode, **facts)
    raw.checked(layer, jax.eval_shape, decode, shapes)
    notes = []
    if g_idx is not None and not (g_idx == -1).any():
        groups = shapes["weight_scale"].shape[1]
        if raw.checked(layer, input_order, g_idx, groups) is not None:
            decode = functools.partial(_ordered, g_idx=g_idx, **facts)
            notes.append(
                f"{layer}: its {groups} groups are not of neighboring inputs "
                "(weight_g_idx); decoded to float32"
            )
    return Entry(shape, lambda: raw.checked(layer, decode, raw.read(names))), notes


def _integers(
    raw: RawLayers, layer: str, scheme: LayerScheme
) -> tuple[Entry, list[str]]:
    """One layer of "int-quantized"."""
    zero = () if scheme.symmetric else ("weight_zero_point",)
    names = raw.arrays(layer, ("weight", "weight_scale", *zero))
    dtypes = {"weight": jnp.int8, "weight_zero_point": jnp.int8}
    shapes = raw.shapes(names, {**dtypes, "weight_scale": jnp.float32})
    decode = functools.partial(_from_integers, bits=scheme.bits)
    raw.checked(layer, jax.eval_shape, decode, shapes)

    def make():
        arrays = raw.read(names)
        for end in dtypes:
            if end in arrays:
                raw.checked(layer, check_signed, arrays[end], scheme.bits, end)
        return raw.checked(layer, decode, arrays)

    return Entry(shapes["weight"].shape, make), []


def _shape(weight_shape: np.ndarray) -> tuple[int, int]:
    """Outputs and inputs."""
    if weight_shape.shape != (2,) or weight_shape.dtype.kind not in "iu":
        raise ValueError(f"weight_shape must be two sizes, got {weight_shape}")
    return int(weight_shape[0]), int(weight_shape[1])


def _fits(decode: Callable[..., Any], shapes: Mapping[str, Any]) -> bool:
    try:
        jax.eval_shape(decode, shapes)
    except ValueError:
        return False
    return True


@functools.partial(jax.jit, static_argnames=("shape", "bits", "padded"))
def _decode(arrays, *, shape, bits, padded):
    """The weight of a layer's arrays, whose groups are in order."""
    packed = CompressedTensors(**arrays, weight_shape=np.array(shape))
    codes = from_compressed_tensors(packed, bits=bits, padded=padded)
    return named_weights.as_weight(codes, bits=bits)


def _ordered(arrays, *, g_idx, shape, bits, padded):
    """The dense weight of a layer's arrays, whose groups are not in order."""
    shape = np.array(shape)
    packed = CompressedTensors(**arrays, weight_shape=shape, weight_g_idx=g_idx)
    codes = from_compressed_tensors(packed, bits=bits, padded=padded)
    return named_weights.as_weight(codes, bits=bits)


@functools.partial(jax.jit, static_argnames="bits")
def _from_integers(arrays, *, bits):
    """The weight of signed codes."""
    given = {"weight": None, "weight_zero_point": None, **arrays}
    codes, zero, scale = (
        given[end] for end in ("weight", "weight_zero_point", "weight_scale")
    )
    if scale.ndim != 2 or not jnp.issubdtype(scale.dtype, jnp.floating):
        raise ValueError(
            f"weight_scale must be floating [out, groups], got {scale.dtype}"
            f"{list(scale.shape)}"
        )
    zero = None if zero is None else unsigned(zero, bits).T
    codes = Codes(unsigned(codes, bits).T, scale.T, zero)
    return named_weights.as_weight(codes, bits=bits)


@jax.jit
def _encode_packed(q: QTensor) -> dict[str, Any]:
    codes = named_weights.as_codes(q)
    arrays = to_compressed_tensors(codes, bits=q.bits)._asdict()
    del arrays["weight_shape"]
    return {end: array for end, array in arrays.items() if array is not None}


def _constants(q: QTensor) -> dict[str, np.ndarray]:
    return {"weight_shape": np.array(q.shape[::-1], np.int64)}


@jax.jit
def _encode_integers(q: QTensor) -> dict[str, Any]:
    codes = named_weights.as_codes(q)
    arrays = {"weight": signed(codes.codes, q.bits).T, "weight_scale": codes.scale.T}
    if codes.zero is not None:
        arrays["weight_zero_point"] = signed(codes.zero, q.bits).T
    return arrays
