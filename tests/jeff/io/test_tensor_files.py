"""Safetensors files written tensor by tensor: the bytes of the library."""

import pathlib

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


def test_no_moment_shows_a_mixture_of_two_writings(tmp_path, monkeypatch):
    """Killed before any rename, the old files or no seal are there."""

    def write(number, most):
        pieces = {n: dense_piece(n, np.full(4, number, np.float32)) for n in "ab"}
        extra = {"note.json": str(number), "config.json": str(number)}
        more = {"seal": "config.json", "max_shard_bytes": most}
        return written(tmp_path, pieces, extra=extra, **more)

    seen = []
    replace = pathlib.Path.replace

    def watched(self, target):
        seen.append({p.name for p in tmp_path.iterdir() if p.suffix != ".tmp"})
        return replace(self, target)

    write(1, 100)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert set(before) == {"config.json", "model.safetensors", "note.json"}
    monkeypatch.setattr(pathlib.Path, "replace", watched)
    names = write(2, 16)
    shards = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    assert names == (
        *shards,
        "model.safetensors.index.json",
        "note.json",
        "config.json",
    )
    for files in seen:
        assert "config.json" not in files or files == set(before)
        assert "model.safetensors" not in files or shards[0] not in files
    assert {p.name for p in tmp_path.iterdir()} == set(names)

    def fails(self, target):
        if self.suffix == ".tmp":
            raise OSError(28, "No space left on device")
        return replace(self, target)

    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    monkeypatch.setattr(pathlib.Path, "replace", fails)
    with pytest.raises(OSError, match="No space left"):
        write(3, 100)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
