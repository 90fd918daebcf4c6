"""A finished block as the bytes of a safetensors file, and back, to the bit.

Arrays are tensors named by where they belong, ``rounded/NAME/packed`` and so on;
everything else is one JSON object in the file's metadata.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jeff.io.tensor_record import Tensors, from_tensors, to_tensors
from jeff.mbq.blocks.finished import FinishedBlock
from jeff.mbq.report import ClipReport, GroupReport
from jeff.mbq.rounding.entries import Rounded
from jeff.quantize import QTensor

__all__ = ["check_place", "from_bytes", "to_bytes"]

_STATIC = tuple(
    f.name for f in dataclasses.fields(QTensor) if f.metadata.get("static", False)
)
_ARRAYS = {GroupReport: ("losses", "scale"), ClipReport: ("steps",)}


def to_bytes(block: FinishedBlock, place: Mapping[str, Any]) -> bytes:
    """The file of a finished block.

    Args:
      block: The block.
      place: Where it belongs: JSON values by name.

    Returns:
      Its bytes.

    Examples:
      >>> block = FinishedBlock({}, {"norm": jnp.ones(2)}, (), (), ("a line",))
      >>> data = to_bytes(block, {"block": 1})
      >>> from_bytes(data, {"block": 1}).notes
      ('a line',)
      >>> from_bytes(data, {"block": 2})
      Traceback (most recent call last):
        ...
      ValueError: it was written for block=1, not 2
    """
    tensors: dict[str, Any] = {f"folded/{n}": a for n, a in block.folded.items()}
    rounded = {}
    for name, (weight, clipped) in block.rounded.items():
        for path, array in jax.tree_util.tree_flatten_with_path(weight)[0]:
            tensors[f"rounded/{name}/{path[0].name}"] = array
        static = {n: getattr(weight, n) for n in _STATIC}
        static["dense_dtype"] = jnp.dtype(weight.dense_dtype).name
        rounded[name] = {"clipped": clipped, "static": static}
    record = {"rounded": rounded, "notes": list(block.notes), "place": dict(place)}
    for kind in ("groups", "clips"):
        record[kind] = []
        for i, report in enumerate(getattr(block, kind)):
            fields = report._asdict()
            for name in _ARRAYS[type(report)]:
                tensors[f"{kind}/{i}/{name}"] = fields.pop(name)
            record[kind].append(fields)
    return to_tensors(tensors, record)


def from_bytes(data: bytes, place: Mapping[str, Any]) -> FinishedBlock:
    """The block whose file this is.

    Args:
      data: From `to_bytes`.
      place: Where it must belong, as `to_bytes` was told.

    Returns:
      The block, its arrays equal to the bit.

    Raises:
      ValueError: If it is not the file of a block, or of one that belongs elsewhere.

    Examples:
      >>> from_bytes(to_tensors({}, {"place": {}}), {})
      Traceback (most recent call last):
        ...
      ValueError: not the file of a finished block: no 'rounded' in it
    """
    tensors, record = from_tensors(data)
    check_place(record, place)
    try:
        rounded = {}
        for name, fields in record["rounded"].items():
            arrays = _under(tensors, f"rounded/{name}/")
            arrays = {n: jnp.asarray(a) for n, a in arrays.items()}
            static = fields["static"]
            static["contract"] = tuple(static["contract"])
            static["dense_dtype"] = jnp.dtype(static["dense_dtype"])
            weight = QTensor(**{"zero": None, **arrays}, **static)
            rounded[name] = Rounded(weight, fields["clipped"])
        return FinishedBlock(
            rounded=rounded,
            folded={n: jnp.asarray(a) for n, a in _under(tensors, "folded/").items()},
            groups=_reports(GroupReport, "groups", tensors, record),
            clips=_reports(ClipReport, "clips", tensors, record),
            notes=tuple(record["notes"]),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        why = f"no {error} in it" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"not the file of a finished block: {why}") from error


def check_place(record: Any, place: Mapping[str, Any]) -> None:
    """Refuses the record of a file that belongs elsewhere.

    Args:
      record: From `from_tensors`.
      place: Where it must belong.

    Raises:
      ValueError: If it belongs elsewhere, or does not say where.

    Examples:
      >>> check_place({"place": {"stack": 0, "block": 1}}, {"stack": 0, "block": 2})
      Traceback (most recent call last):
        ...
      ValueError: it was written for block=1, not 2
    """
    there = record.get("place") if isinstance(record, dict) else None
    if not isinstance(there, dict):
        raise ValueError("it does not say where it belongs")
    for name, wanted in place.items():
        if there.get(name) != wanted:
            raise ValueError(
                f"it was written for {name}={there.get(name)!r}, not {wanted!r}"
            )


def _under(tensors: Tensors, prefix: str) -> Tensors:
    return {
        n.removeprefix(prefix): a for n, a in tensors.items() if n.startswith(prefix)
    }


def _reports(kind: Any, name: str, tensors: Tensors, record: Any) -> tuple[Any, ...]:
    reports = []
    for i, fields in enumerate(record[name]):
        fields = {n: tuple(v) if isinstance(v, list) else v for n, v in fields.items()}
        reports.append(kind(**fields, **_under(tensors, f"{name}/{i}/")))
    return tuple(reports)
