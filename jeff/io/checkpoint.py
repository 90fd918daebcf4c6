"""Hugging Face folders: a configuration and safetensors files, read tensor by tensor.

References:
  github huggingface/safetensors, README.md ("Format").
  The index of sharded checkpoints: huggingface_hub, ``serialization/_base.py``.
"""

import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import ml_dtypes  # noqa: F401  (NumPy learns bfloat16 and the eight-bit floats)
import numpy as np
import safetensors

from jeff.io.tensor_files import INDEX_FILE, SINGLE_FILE

__all__ = ["CONFIG_FILE", "Checkpoint", "Tensors", "read_checkpoint", "read_json"]

CONFIG_FILE = "config.json"


class Tensors(Mapping[str, np.ndarray]):
    """Tensors of one or several safetensors files by name, read when asked for.

    The files stay open and are mapped into memory; nothing of a tensor is read before
    it is looked up, and each look-up reads it anew.

    Args:
      files: The file of each tensor; files are opened here, and checked by it.

    Raises:
      ValueError: If a file is missing, cut short or not a safetensors file (the first
        one is named), or lacks tensors that it should hold (all are).

    Examples:
      >>> import tempfile
      >>> from safetensors.numpy import save_file
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     file = pathlib.Path(folder) / "model.safetensors"
      ...     save_file({"w": np.ones((2, 3), ml_dtypes.bfloat16)}, file)
      ...     tensors = Tensors.of_file(file)
      ...     list(tensors), tensors.shape("w"), tensors["w"].dtype
      (['w'], (2, 3), dtype(bfloat16))
    """

    def __init__(self, files: Mapping[str, pathlib.Path]):
        """Opens the files."""
        self._opened = {path: _open(path) for path in dict.fromkeys(files.values())}
        self._files = {}
        for path, opened in self._opened.items():
            self._files.update({name: path for name in opened.keys()})
        known = {path: set(opened.keys()) for path, opened in self._opened.items()}
        lost = [f"{n} in {p}" for n, p in files.items() if n not in known[p]]
        if lost:
            raise ValueError(f"the index names tensors that are not there: {lost}")
        self._files.update(files)

    @classmethod
    def of_file(cls, path: str | os.PathLike[str]) -> "Tensors":
        """All tensors of one file.

        Args:
          path: A safetensors file.

        Returns:
          The tensors.

        Raises:
          ValueError: As the constructor.
        """
        path = pathlib.Path(path)
        return cls({name: path for name in _open(path).keys()})

    def __getitem__(self, name: str) -> np.ndarray:
        """Reads a tensor."""
        opened = self._opened[self._files[name]]
        try:
            return opened.get_tensor(name)
        except (safetensors.SafetensorError, TypeError, KeyError) as error:
            kind = opened.get_slice(name).get_dtype()
            raise ValueError(
                f"{self._files[name]}: {name} of dtype {kind} cannot be read: {error}"
            ) from error

    def __iter__(self) -> Iterator[str]:
        """Names, file by file."""
        return iter(self._files)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._files)

    def __contains__(self, name: object) -> bool:
        """Whether there is such a tensor; nothing is read."""
        return name in self._files

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, without reading it.

        Args:
          name: Its name.

        Returns:
          The shape.

        Raises:
          KeyError: If there is none of that name.
        """
        return tuple(self._opened[self._files[name]].get_slice(name).get_shape())

    @property
    def metadata(self) -> dict[str, str]:
        """What the headers of the files say besides the tensors, later ones first."""
        merged: dict[str, str] = {}
        for opened in self._opened.values():
            merged.update(opened.metadata() or {})
        return merged


class Checkpoint(NamedTuple):
    """What a folder holds.

    Attributes:
      config: Content of ``config.json``.
      tensors: By the names in the files; read when looked up.
    """

    config: dict[str, Any]
    tensors: Tensors


def read_checkpoint(folder: str | os.PathLike[str]) -> Checkpoint:
    """Opens a folder with ``config.json`` and one or several safetensors files.

    Args:
      folder: Holds ``model.safetensors``, or ``model.safetensors.index.json`` and the
        files that it names.

    Returns:
      The configuration, and the tensors still in their files.

    Raises:
      ValueError: If a file is missing, cut short or corrupt, with its name; if the
        index names tensors that its files lack, with theirs.

    Examples:
      >>> import tempfile
      >>> from safetensors.numpy import save_file
      >>> with tempfile.TemporaryDirectory() as name:
      ...     folder = pathlib.Path(name)
      ...     _ = (folder / "config.json").write_text('{"model_type": "llama"}')
      ...     save_file({"norm": np.ones(4)}, folder / "model.safetensors")
      ...     checkpoint = read_checkpoint(folder)
      ...     checkpoint.config["model_type"], checkpoint.tensors["norm"].shape
      ('llama', (4,))
    """
    place = pathlib.Path(folder)
    if not place.is_dir():
        raise ValueError(f"there is no folder {place}")
    config = read_json(place / CONFIG_FILE)
    if (place / SINGLE_FILE).is_file():
        return Checkpoint(config, Tensors.of_file(place / SINGLE_FILE))
    if (place / INDEX_FILE).is_file():
        return Checkpoint(config, Tensors(_shards(place / INDEX_FILE)))
    others = sorted(p.name for p in place.iterdir() if p.suffix in (".bin", ".pt"))
    pickles = f"; {', '.join(others)} would run code when read" if others else ""
    raise ValueError(f"{place} has neither {SINGLE_FILE} nor {INDEX_FILE}{pickles}")


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A JSON file that holds an object.

    Args:
      path: The file.

    Returns:
      Its content.

    Raises:
      ValueError: If it is missing, no JSON or no object; with its name.

    Examples:
      >>> read_json("/nowhere/config.json")
      Traceback (most recent call last):
        ...
      ValueError: there is no file /nowhere/config.json
    """
    path = pathlib.Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise ValueError(f"{path} must hold a JSON object, it holds a {kind}")
    return content


def _shards(index: pathlib.Path) -> dict[str, pathlib.Path]:
    """The file of each tensor, by an index."""
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ValueError(f"{index} has no weight_map")
    odd = [f for f in places.values() if not isinstance(f, str) or _outside(f)]
    if odd:
        raise ValueError(f"{index} names no file of its folder: {odd[0]!r}")
    lost = sorted({f for f in places.values() if not (index.parent / f).is_file()})
    if lost:
        raise ValueError(f"{index} names files that are not there: {', '.join(lost)}")
    return {name: index.parent / file for name, file in places.items()}


def _outside(file: str) -> bool:
    return pathlib.PurePath(file).name != file or "\\" in file


def _open(path: pathlib.Path) -> Any:
    try:
        return safetensors.safe_open(path, framework="np")
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}") from None
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(f"{path} is cut short or no safetensors file: {error}") from (
            error
        )
