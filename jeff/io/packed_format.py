"""jeff's own format of quantized checkpoints, which holds every `QTensor`.

A layer ``NAME`` has, in place of ``NAME.weight``:

- ``NAME.qweight``: uint32, the packed words of its `jeff.quantize.QTensor`;
- ``NAME.scales``: floating, of the dtype they were made in;
- ``NAME.zeros``: uint8 or floating; absent where codes are symmetric.

What the arrays do not say is JSON under ``"jeff"`` in the metadata of the safetensors
files: per layer ``bits``, ``contract`` (axes that a product sums over), ``dtype``
(decoded), ``group_size``, ``layout`` (``"strided"``, see `pallas_kernels.bits`),
``pad``, ``stride`` and ``zeros``. ``config.json`` is the model's, with a
``quantization_config`` whose ``quant_method`` is ``"jeff"``.
"""

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jeff.io import named_weights
from jeff.io.quantized_files import Extra, write_checkpoint
from jeff.io.raw_layers import Entry, Opened, RawLayers
from jeff.io.tensor_files import MAX_SHARD_BYTES
from jeff.quantize import QTensor, checks
from pallas_kernels import bits as layouts

__all__ = ["METHOD", "open_packed", "write_quantized"]

METHOD = "jeff"
_FORMAT = 1
_LAYOUT = "strided"
_ENDS = ("qweight", "scales", "zeros")
_FACTS = ("bits", "contract", "dtype", "layout", "pad", "stride", "zeros")


def write_quantized(
    folder: str | os.PathLike[str],
    tensors: Mapping[str, Any],
    *,
    config: Mapping[str, Any],
    metadata: Mapping[str, Any] | None = None,
    activation_bits: int | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    extra: Extra | None = None,
) -> tuple[str, ...]:
    """Writes a checkpoint in jeff's format, which holds every `QTensor`.

    The same tensors give the same bytes. Files are written tensor by tensor beside
    their places and renamed at the end, ``config.json`` last.

    Args:
      folder: Where to; made if need be.
      tensors: Dense arrays ``[out, in]`` and `jeff.quantize.QTensor` kernels
        ``[in, out]`` by Hugging Face name; one is held at a time if the map makes them
        when asked.
      config: The model's ``config.json``; a ``quantization_config`` in it is replaced.
      metadata: What else to keep, such as the method; JSON.
      activation_bits: Width of dynamic activation codes that the model expects.
      max_shard_bytes: Largest size of a file with more than one tensor; several files
        get Hugging Face's index.
      extra: Text or bytes of further files by name, replaced with the others and before
        ``config.json``.

    Returns:
      Names of the files written.

    Raises:
      ValueError: If nothing is quantized, a `QTensor` is not under the name of a
        weight, two arrays would get one name, or `config` or `metadata` is no JSON;
        nothing is written then.
      TypeError: If a tensor is neither an array nor a `QTensor`.
      OSError: If the folder cannot be written to; no file has changed then.

    Examples:
      >>> import tempfile
      >>> from jeff.quantize import QuantConfig, quantize
      >>> q = quantize(jnp.eye(64, 8), QuantConfig(bits=3, group_size=32))
      >>> tensors = {"up.weight": q, "norm.weight": jnp.ones(8)}
      >>> folder = tempfile.mkdtemp()
      >>> write_quantized(folder, tensors, config={}, metadata={"method": "rtn"})
      ('model.safetensors', 'config.json')
      >>> from jeff.io import read_quantized
      >>> read = read_quantized(folder)
      >>> read.tensors["up.weight"], read.metadata
      (QTensor(float32[64, 8], 3 bits, scales float32[2, 8]), {'method': 'rtn'})
      >>> bool((read.tensors["up.weight"].decode() == q.decode()).all())
      True
    """
    layers = {}
    for name, q in named_weights.quantized(tensors):
        layers[named_weights.layer_name(name)] = _about(q)
    if not layers:
        raise ValueError(named_weights.NOTHING)
    settings = {
        "quant_method": METHOD,
        "format": _FORMAT,
        "bits": _same(about["bits"] for about in layers.values()),
        "group_size": _same(about["group_size"] for about in layers.values()),
        "activation_bits": activation_bits,
        "metadata": dict(metadata or {}),
    }
    header = json.dumps({"format": _FORMAT, "layers": layers}, sort_keys=True)
    units = named_weights.pieces(tensors, _encode)
    return write_checkpoint(
        folder, units, config, settings, max_shard_bytes, {METHOD: header}, extra
    )


def open_packed(raw: RawLayers, settings: Mapping[str, Any]) -> Opened:
    """The tensors of a checkpoint in jeff's format.

    Args:
      raw: What its files hold.
      settings: Its ``quantization_config``.

    Returns:
      How to make each.

    Raises:
      ValueError: If the format is newer, or an array is missing, extra or does not fit
        what the files say of it.
    """
    form = settings.get("format")
    if form != _FORMAT:
        newer = isinstance(form, int) and form > _FORMAT
        why = "; a newer jeff wrote it" if newer else ""
        raise raw.settings_error(f"format is {form!r}, this jeff reads {_FORMAT}{why}")
    try:
        about = json.loads(raw.tensors.metadata[METHOD])
        layers = dict(about["layers"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{raw.folder}: the metadata of its safetensors files have no {METHOD!r} "
            f"that is as it should be: {error!r}"
        ) from None
    entries = {}
    for layer, stored in layers.items():
        facts = raw.checked(layer, _facts, stored)
        names = raw.arrays(layer, _ENDS if facts["zeros"] else _ENDS[:2])
        shapes = {end: raw.tensors.shape(name) for end, name in names.items()}
        shape = raw.checked(layer, _dense_shape, facts, shapes)

        def make(layer=layer, names=names, facts=facts):
            return raw.checked(layer, _decode, facts, raw.read(names))

        entries[f"{layer}.weight"] = Entry(shape[:-2] + shape[-2:][::-1], make)
    for name in raw.unused(_ENDS):
        raise raw.error(name, "is extra: the files' metadata knows no such array")
    return Opened({**raw.dense(), **entries}, settings.get("activation_bits"))


def _about(q: QTensor) -> dict[str, Any]:
    """What a `QTensor` is besides its arrays."""
    shape, groups = q.shape, q.scale.shape
    size = 1
    for axis in q.contract:
        size *= shape[axis] // groups[axis]
    return {
        "bits": q.bits,
        "contract": list(q.contract),
        "dtype": np.dtype(q.dtype).name,
        "group_size": size,
        "layout": _LAYOUT,
        "pad": q.pad,
        "stride": q.stride,
        "zeros": None if q.zero is None else np.dtype(q.zero.dtype).name,
    }


def _encode(q: QTensor) -> dict[str, Any]:
    arrays = {"qweight": q.packed, "scales": q.scale, "zeros": q.zero}
    return {end: array for end, array in arrays.items() if array is not None}


def _facts(stored: Any) -> dict[str, Any]:
    """What the metadata say of a layer, if it is all there and of the right kinds."""
    try:
        facts = {name: stored[name] for name in _FACTS}
        known = {"bits": layouts.WIDTHS, "stride": layouts.STRIDES}
        for name in ("bits", "stride", "pad"):
            number = checks.integer(facts[name], name)
            if number not in known.get(name, (number,)):
                raise ValueError(f"{name} must be one of {known[name]}, got {number}")
        facts["contract"] = [checks.integer(a, "contract") for a in facts["contract"]]
        checks.word(facts["layout"], "layout", (_LAYOUT,))
        for name in ("dtype", "zeros"):
            if facts[name] is not None or name == "dtype":
                jnp.dtype(facts[name])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"its entry in the files' metadata: {error}") from None
    return facts


def _dense_shape(
    facts: Mapping[str, Any], shapes: Mapping[str, Any]
) -> tuple[int, ...]:
    """Shape of the dense kernel; everything that can be told from shapes is checked."""
    packed, scales = shapes["qweight"], shapes["scales"]
    rank, contract = len(packed), facts["contract"]
    if not contract or not all(-rank <= axis < 0 for axis in contract):
        raise ValueError(f"contract is {contract}, but qweight has {rank} axes")
    shape, words = list(packed), packed[contract[-1]]
    size = words * 32 // facts["bits"]
    tile = 32 * facts["stride"]
    if size % tile or not 0 <= facts["pad"] < tile or facts["pad"] >= size:
        raise ValueError(
            f"qweight has shape {packed}, which are no tiles of {tile} codes of "
            f"{facts['bits']} bits, the last {facts['pad']} unused"
        )
    shape[contract[-1]] = size - facts["pad"]
    fits = len(scales) == rank and all(
        g > 0 and n % g == 0 for n, g in zip(shape, scales, strict=True)
    )
    if not fits:
        raise ValueError(f"scales of shape {scales} do not divide a weight of {shape}")
    if "zeros" in shapes and shapes["zeros"] != scales:
        raise ValueError(f"zeros has shape {shapes['zeros']}, scales {scales}")
    return tuple(shape)


def _decode(facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> QTensor:
    """The weight of a layer's arrays, checked by their dtypes."""
    packed, scales, zeros = arrays["qweight"], arrays["scales"], arrays.get("zeros")
    if packed.dtype != np.uint32:
        raise ValueError(f"qweight must be uint32, got {packed.dtype}")
    if not jnp.issubdtype(scales.dtype, jnp.floating):
        raise ValueError(f"scales must be floating, got {scales.dtype}")
    if zeros is not None and np.dtype(zeros.dtype).name != facts["zeros"]:
        raise ValueError(f"zeros must be {facts['zeros']}, got {zeros.dtype}")
    return QTensor(
        packed=jnp.asarray(packed),
        scale=jnp.asarray(scales),
        zero=None if zeros is None else jnp.asarray(zeros),
        bits=facts["bits"],
        stride=facts["stride"],
        contract=tuple(facts["contract"]),
        pad=facts["pad"],
        dense_dtype=jnp.dtype(facts["dtype"]),
    )


def _same(values: Iterable[Any]) -> Any:
    """The value, if all are the same; else ``None``."""
    found = set(values)
    return found.pop() if len(found) == 1 else None
