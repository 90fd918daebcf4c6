"""Safetensors files written tensor by tensor: the bytes of the library."""

import numpy as np
import pytest
import safetensors.numpy

from jeff.io.tensor_files import Piece, dense_piece, write_tensor_files

DTYPES = (
    "bool", "uint8", "int8", "int16", "uint16", "float16", "int32", "uint32",
    "float32", "float64", "int64", "uint64",
)  # fmt: skip


def written(folder, pieces, **kwargs):
    units = {name: {name: piece} for name, piece in pieces.items()}
    kwargs = {"metadata": {"format": "pt"}, "extra": {}, **kwargs}
    return write_tensor_files(folder, units, **kwargs)


def test_bytes_are_those_of_the_library(tmp_path):
    arrays = {f"b.{d}": np.arange(3).astype(d) for d in DTYPES}
    arrays |= {"empty": np.zeros((0, 3), np.float32), "ä": np.array(3, np.int32)}
    arrays["turned"] = np.arange(6, dtype=np.int16).reshape(2, 3).T
    written(tmp_path, {n: dense_piece(n, a) for n, a in arrays.items()})
    contiguous = {
        n: np.ascontiguousarray(a).reshape(a.shape) for n, a in arrays.items()
    }
    expected = safetensors.numpy.save(contiguous, {"format": "pt"})
    assert (tmp_path / "model.safetensors").read_bytes() == expected


def test_a_tensor_is_made_when_it_is_written(tmp_path):
    made = []

    def make(name):
        made.append(name)
        return np.zeros(4, np.float32)

    pieces = {n: Piece((4,), np.dtype(np.float32), lambda n=n: make(n)) for n in "ab"}
    names = written(tmp_path, pieces, max_shard_bytes=16, extra={"x.json": "{}"})
    assert made == ["a", "b"] and len(names) == 4 and names[-1] == "x.json"


def test_a_piece_that_changed_is_found_before_anything_is_renamed(tmp_path):
    pieces = {"a": Piece((4,), np.dtype(np.float32), lambda: np.zeros(4, np.float16))}
    with pytest.raises(ValueError, match="'a' is float16 now; it was float32"):
        written(tmp_path, pieces)
    pieces = {"a": Piece((4,), np.dtype(np.float32), lambda: np.zeros(5, np.float32))}
    with pytest.raises(ValueError, match=r"'a' is of shape \(5,\) now; it was \(4,\)"):
        written(tmp_path, pieces)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="no tensors"):
        written(tmp_path, {})
