"""The files of a quantization from folder to folder: what is read, what is written."""

import dataclasses
import math
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jeff import base, tree
from jeff.io import versions, write_format
from jeff.io.checkpoint import CONFIG_FILE, read_checkpoint, read_json
from jeff.io.raw_layers import Entry, NamedTensors
from jeff.io.tensor_files import INDEX_FILE, json_text
from jeff.mbq.folder.settings import FolderSettings
from jeff.mbq.report import Report
from jeff.models import registry
from jeff.models.gguf.file import read_gguf
from jeff.models.tensors import Tensor
from jeff.quantize import QTensor

if TYPE_CHECKING:
    from jeff.mbq.folder.job import Prepared

__all__ = [
    "REPORT_FILE",
    "Source",
    "changed",
    "open_source",
    "record",
    "remove_stale",
    "write",
]

REPORT_FILE = "quantize.json"
"""Where the report of a job is written, beside the weights."""

_COPIED = (".json", ".jinja", ".txt", ".model")  # of tokenizers and processors
_STALE = re.compile(r"\..+\.[0-9a-f]{16}\.tmp")


class Source(NamedTuple):
    """A model to be quantized and what its files hold.

    Attributes:
      place: The folder, or the GGUF file.
      model: The model; its leaves are dense.
      config: Content of ``config.json``.
      tensors: By the names in the files, read when looked up.
      rename: Name in `table` of a name in the files; ``None`` if it has no place there.
      table: Where each tensor stands in the params.
    """

    place: pathlib.Path
    model: registry.Model
    config: dict[str, Any]
    tensors: Any
    rename: Callable[[str], str | None]
    table: tuple[Tensor, ...]


def open_source(folder: pathlib.Path, dtype: Any) -> Source:
    """Reads a model that is not quantized yet.

    Args:
      folder: A Hugging Face folder, one with a GGUF file, or such a file.
      dtype: Of the params.

    Returns:
      The model.

    Raises:
      ValueError: As `jeff.models.registry.load`, or if it is quantized already.
    """
    place = registry.locate(folder)
    if place.is_dir():
        config = read_json(place / CONFIG_FILE)
        if "quantization_config" in config:
            settings = config["quantization_config"]
            known = isinstance(settings, Mapping)
            method = settings.get("quant_method") if known else settings
            raise ValueError(
                f"{place / CONFIG_FILE}: the model is quantized already ({method})"
            )
        model = registry.load(place, dtype=dtype)
        tensors = read_checkpoint(place).tensors
    else:
        model = registry.load(place, dtype=dtype)
        config, tensors, _ = read_gguf(place)
    module = registry.architecture(model.architecture)
    rename = registry.renamer(module, tied=model.config.decoder.tied)
    table = module.tensor_table(model.config)
    return Source(place, model, config, tensors, rename, table)


def changed(source: Source, params: Any) -> dict[str, Any]:
    """The leaves that a quantization has changed.

    Args:
      source: The model before.
      params: Its params now.

    Returns:
      The quantized and folded leaves by path; all others are the source's own.
    """
    before = source.model.params
    leaves = {row.path: tree.get(params, row.path) for row in source.table}
    return {p: leaf for p, leaf in leaves.items() if leaf is not tree.get(before, p)}


def remove_stale(*folders: pathlib.Path) -> None:
    """Removes what a killed process has left half written.

    Args:
      *folders: Where to look, also one folder below.
    """
    for folder in folders:
        for file in (*folder.glob(".*.tmp"), *folder.glob("*/.*.tmp")):
            if _STALE.fullmatch(file.name):
                file.unlink(missing_ok=True)


def write(
    settings: FolderSettings,
    source: Source,
    leaves: Mapping[str, Any],
    content: Mapping[str, Any],
) -> tuple[str, ...]:
    """Writes the quantized model: all files are staged, then replaced together.

    The ``config.json`` of a model that is replaced goes first, and the new one comes
    last: whenever the process is killed, a folder with one is finished.

    Args:
      settings: Format and folder.
      source: The model before; its params are not looked at.
      leaves: From `changed`.
      content: What goes into `REPORT_FILE`.

    Returns:
      Names of the files written.

    Raises:
      OSError: If they cannot be.
      ValueError: As `jeff.io.write_format`.
    """
    return write_format(
        settings.format,
        settings.out,
        _tensors(source, leaves),
        config=source.config,
        metadata={"method": settings.method, **_plain(settings.plain())},
        activation_bits=settings.config.activation_bits,
        max_shard_bytes=settings.shard_bytes,
        extra={REPORT_FILE: json_text(content)} | _helpers(source),
    )


def record(settings: FolderSettings, job: "Prepared", report: Report) -> dict[str, Any]:
    """What `REPORT_FILE` holds: the same for the same job, to the byte.

    Args:
      settings: What was asked for.
      job: What was found before.
      report: What the method says.

    Returns:
      JSON values; numbers that are not finite are ``null``.
    """
    return _plain(
        {
            "format": 1,
            "method": settings.method,
            "model_type": job.source.model.architecture,
            "written_as": settings.format,
            "settings": settings.plain(),
            "calibration": {
                "batches": len(job.data.batches),
                "samples": len(job.data.batches) * settings.batch_size,
                "cut": job.data.cut,
                "tokens": job.data.tokens,
            },
            "blocks": job.blocks,
            "bytes_at_16_bits": report.dense_bytes,
            "bytes": report.stored_bytes,
            "sensitivities": report.sensitivities,
            "groups": [
                {
                    "block": g.block,
                    "sites": g.sites,
                    "folded_into": g.fold,
                    "exponent": g.exponent,
                    "ratios": g.ratios,
                    "loss": min(g.losses, default=None),
                    "loss_unscaled": g.losses[0] if len(g.losses) else None,
                    "fold_change": g.change,
                    "note": g.note,
                }
                for g in report.groups
            ],
            "clips": [
                {
                    "block": c.block,
                    "leaf": c.leaf,
                    "clipped": c.clipped,
                    "error_before": c.before,
                    "error_after": c.after,
                }
                for c in report.clips
            ],
            "notes": report.notes,
            "versions": versions(),
        }
    )


def _tensors(source: Source, leaves: Mapping[str, Any]) -> NamedTensors:
    """The tensors of the source, with quantized and folded leaves in their places.

    What did not change is read from the source again, in the dtype that it has there.
    """
    rows = {row.name: row for row in source.table}
    entries = {}
    for name in source.tensors:
        row = rows.get(source.rename(name) or "")
        leaf = None if row is None else leaves.get(row.path)
        entries[name] = _entry(source, name, leaf, row)
    return NamedTensors(entries)


def _entry(source: Source, name: str, leaf: Any, row: Any) -> Entry:
    tensors = source.tensors
    if leaf is None:
        known = hasattr(tensors, "shape")
        shape = tensors.shape(name) if known else tensors[name].shape
        return Entry(tuple(shape), lambda: tensors[name])
    if isinstance(leaf, QTensor):
        # Narrow weights are decoded in float32 anyway; what runs them says how narrow.
        wide = dataclasses.replace(leaf, dense_dtype=jnp.dtype(jnp.float32))
        return Entry(leaf.shape[::-1], lambda: wide)
    if base.is_stored(leaf):
        raise TypeError(f"{name} is a {type(leaf).__name__}")
    dense = np.asarray(leaf.T if row.transpose else leaf)
    return Entry(dense.shape, lambda: dense)


def _helpers(source: Source) -> dict[str, bytes | str]:
    """Files of tokenizer and processor, copied; made from what a GGUF file says."""
    model = source.model
    if source.place.is_dir():
        own = (CONFIG_FILE, INDEX_FILE, REPORT_FILE)
        return {
            file.name: file.read_bytes()
            for file in sorted(source.place.iterdir())
            if file.is_file() and file.suffix in _COPIED and file.name not in own
        }
    if model.tokenizer is None:
        return {}
    words = {"tokenizer_class": "PreTrainedTokenizerFast", **dict(model.chat.variables)}
    return {
        "tokenizer.json": model.tokenizer.to_str(),
        "tokenizer_config.json": json_text(words),
        "chat_template.jinja": model.chat.template,
    }


def _plain(value: Any) -> Any:
    """As JSON has it."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray | jnp.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
