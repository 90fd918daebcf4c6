"""Safetensors files written tensor by tensor, in shards, all renamed at the end.

The bytes are those that the `safetensors` library writes, which wants all tensors in
memory at once: a length of 8 bytes, a header in JSON padded to a multiple of 8, and the
tensors, widest dtypes first and then by name, so that each one is aligned.

References:
  github huggingface/safetensors, README.md ("Format"); the index of sharded
  checkpoints is that of huggingface_hub, ``serialization/_base.py``.
"""

import json
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jeff.io.atomic import Content, write_together

__all__ = [
    "DTYPES",
    "INDEX_FILE",
    "MAX_SHARD_BYTES",
    "SINGLE_FILE",
    "Piece",
    "dense_piece",
    "json_text",
    "write_tensor_files",
]

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
MAX_SHARD_BYTES = 5 * 10**9
"""What a file with more than one tensor holds at most, as Hugging Face's do."""

_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
DTYPES = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "int16": "I16", "uint16": "U16",
    "float16": "F16", "bfloat16": "BF16", "int32": "I32", "uint32": "U32",
    "float32": "F32", "float64": "F64", "int64": "I64", "uint64": "U64",
}  # fmt: skip


class Piece(NamedTuple):
    """One array of a file: what the header says of it, and how to make it.

    Attributes:
      shape: Its shape.
      dtype: Its dtype.
      make: Returns it; called when its turn to be written has come.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    make: Callable[[], Any]

    @property
    def nbytes(self) -> int:
        """Bytes that it takes in the file."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


def dense_piece(name: str, array: Any, make: Callable[[], Any] | None = None) -> Piece:
    """A dense array as it is.

    Args:
      name: What to call it in an error.
      array: A NumPy or JAX array.
      make: Returns it again, if it is not to be held; else it is.

    Returns:
      The piece.

    Raises:
      TypeError: If it is no array, or of a dtype that such files do not have.

    Examples:
      >>> dense_piece("norm.weight", np.ones((3,), np.float32)).nbytes
      12
    """
    dtype = getattr(array, "dtype", None)
    if not hasattr(array, "shape") or str(dtype) not in DTYPES:
        kind = type(array).__name__ if dtype is None else f"of dtype {dtype}"
        raise TypeError(f"tensor {name!r} must be an array of numbers, it is {kind}")
    return Piece(tuple(array.shape), np.dtype(dtype), make or (lambda: array))


def json_text(value: Any) -> str:
    """JSON as Hugging Face writes its configurations: indented, keys sorted.

    Raises:
      ValueError: If `value` holds what JSON has no word for.
    """
    try:
        text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"cannot be written as JSON: {error}") from error
    return text + "\n"


def write_tensor_files(
    folder: str | os.PathLike[str],
    tensors: Mapping[str, Mapping[str, Piece]],
    *,
    metadata: Mapping[str, str],
    extra: Mapping[str, str | bytes],
    seal: str | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> tuple[str, ...]:
    """Writes one safetensors file or several with an index, and what belongs to them.

    No tensor is made before its turn. All files are staged first. Then `seal` and the
    weights of an earlier writing that have no successor are removed, and all files are
    renamed, `extra` last: no moment shows weights of one writing beside the seal of
    another.

    Args:
      folder: Where to; made if need be.
      tensors: By name, the pieces of each tensor by *their* names; the pieces of one
        tensor go to one file.
      metadata: Text for the header of every file.
      extra: Text or bytes of further files by name.
      seal: The file whose presence says that the others are complete; the last of
        `extra`.
      max_shard_bytes: Largest size of the tensors of a file, unless it has only one.

    Returns:
      Names of the files, in the order in which they were renamed.

    Raises:
      ValueError: If there is no tensor, two pieces have one name, or a piece was made
        that is not as it was said to be; nothing has changed then.
      OSError: As `jeff.io.write_together`.
    """
    if max_shard_bytes < 1:
        raise ValueError(f"max_shard_bytes must be positive, got {max_shard_bytes}")
    place = pathlib.Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    shards = _shards(tensors, max_shard_bytes)
    contents: dict[str, Content] = {}
    places = {}
    for i, names in enumerate(shards, 1):
        file = f"model-{i:05d}-of-{len(shards):05d}.safetensors"
        file = SINGLE_FILE if len(shards) == 1 else file
        pieces = {k: p for name in names for k, p in tensors[name].items()}
        contents[file] = _file(pieces, metadata)
        places |= dict.fromkeys(pieces, file)
    if len(shards) > 1:
        size = sum(p.nbytes for unit in tensors.values() for p in unit.values())
        index = {"metadata": {"total_size": size}, "weight_map": places}
        contents[INDEX_FILE] = json_text(index)
    contents |= extra
    write_together(
        {place / file: content for file, content in contents.items()},
        remove=[*([] if seal is None else [place / seal]), *_stale(place, contents)],
    )
    return tuple(contents)


def _stale(folder: pathlib.Path, contents: Mapping[str, Any]) -> list[pathlib.Path]:
    """Weights of an earlier writing that nothing of this one replaces."""
    return [
        file
        for file in sorted(folder.iterdir())
        if file.name in (SINGLE_FILE, INDEX_FILE) or _SHARD.fullmatch(file.name)
        if file.name not in contents
    ]


def _shards(tensors, most) -> list[list[str]]:
    """Names of the tensors of each file, in order."""
    if not tensors:
        raise ValueError("there are no tensors to write")
    owners: dict[str, str] = {}
    shards: list[list[str]] = [[]]
    filled = 0
    for name in sorted(tensors):
        for piece in tensors[name]:
            if piece in owners:
                raise ValueError(
                    f"tensors {owners[piece]!r} and {name!r} would both be written as "
                    f"{piece!r}"
                )
            owners[piece] = name
        size = sum(p.nbytes for p in tensors[name].values())
        if shards[-1] and filled + size > most:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards


def _file(
    pieces: Mapping[str, Piece], metadata: Mapping[str, str]
) -> Iterator[bytes | memoryview]:
    """The bytes of one file, in pieces."""
    order = sorted(pieces, key=lambda n: (_rank(pieces[n].dtype), n))
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    start = 0
    for name in order:
        piece = pieces[name]
        end = start + piece.nbytes
        header[name] = {
            "dtype": DTYPES[piece.dtype.name],
            "shape": list(piece.shape),
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in order:
        piece = pieces[name]
        array = np.asarray(piece.make())
        if array.dtype != piece.dtype:
            raise ValueError(
                f"tensor {name!r} is {array.dtype} now; it was {piece.dtype}"
            )
        if array.shape != piece.shape:
            raise ValueError(
                f"tensor {name!r} is of shape {array.shape} now; it was {piece.shape}"
            )
        yield np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _rank(dtype: np.dtype) -> int:
    """Place of a dtype in a file: the library sorts them from the widest down."""
    return -list(DTYPES).index(jnp.dtype(dtype).name)
