"""The arrays of a quantized checkpoint, gathered by layer and checked by their shapes.

Each layout of other programs keeps a few arrays per quantized layer, ``NAME.qweight``,
``NAME.scales`` and so on; everything else in its files is dense.
"""

import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jeff.io.checkpoint import CONFIG_FILE, Tensors, read_json
from jeff.io.tensor_files import INDEX_FILE, SINGLE_FILE

__all__ = ["Entry", "NamedTensors", "Opened", "RawLayers"]


class Entry(NamedTuple):
    """A tensor that is made when it is asked for.

    Attributes:
      shape: That of the dense tensor in a checkpoint: ``[out, in]`` for a layer.
      make: Reads it.
    """

    shape: tuple[int, ...]
    make: Callable[[], Any]


class Opened(NamedTuple):
    """What a layout found in a checkpoint.

    Attributes:
      entries: The dense and quantized tensors by name.
      activation_bits: Width of dynamic activation codes, if the checkpoint has any.
      notes: Lines about what is not as it seems.
    """

    entries: Mapping[str, Entry]
    activation_bits: int | None = None
    notes: tuple[str, ...] = ()


class NamedTensors(Mapping[str, Any]):
    """A named tensor map whose tensors are read each time they are asked for.

    Iterating gives names, sorted; nothing is read before a tensor is looked up.
    """

    def __init__(self, entries: Mapping[str, Entry]):
        """Takes the entries by name."""
        self._entries = dict(sorted(entries.items()))

    def __getitem__(self, name: str) -> Any:
        """Reads a tensor."""
        return self._entries[name].make()

    def __contains__(self, name: object) -> bool:
        """Whether there is such a tensor; nothing is read."""
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        """The names."""
        return iter(self._entries)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor as a dense checkpoint has it, without reading it.

        Args:
          name: Its name.

        Returns:
          The shape; ``(out, in)`` for a layer, also where it is quantized.

        Raises:
          KeyError: If there is none of that name.
        """
        return self._entries[name].shape


class RawLayers:
    """The arrays of a checkpoint's files, by layer."""

    def __init__(self, folder: str | os.PathLike[str], tensors: Tensors):
        """Takes the folder, for errors, and its tensors."""
        self.folder = pathlib.Path(folder)
        self.tensors = tensors
        self._used: set[str] = set()

    def settings_error(self, problem: str) -> ValueError:
        """An error about the settings of the quantizer."""
        return ValueError(
            f"{self.folder / CONFIG_FILE}: quantization_config: {problem}"
        )

    def error(self, name: str, problem: str) -> ValueError:
        """An error about a tensor, naming the file that it is in, or should be."""
        file = self.folder / SINGLE_FILE
        if not file.is_file():
            index = self.folder / INDEX_FILE
            places = read_json(index).get("weight_map", {})
            file = self.folder / places[name] if name in places else index
        return ValueError(f"{file}: tensor {name!r}: {problem}")

    def layers(self, ends: Sequence[str]) -> list[str]:
        """Names of the layers that have one of these arrays, sorted."""
        found = {n.rpartition(".")[::2] for n in self.tensors}
        return sorted({layer for layer, end in found if end in ends})

    def arrays(
        self, layer: str, needed: Sequence[str], optional: Sequence[str] = ()
    ) -> dict[str, str]:
        """Names of the arrays of a layer, by the end of their names.

        Args:
          layer: Name of the layer.
          needed: Ends of names that must be there.
          optional: Ends of names that may be.

        Returns:
          Those that are there.

        Raises:
          ValueError: If one is missing, or the layer has a dense weight besides.
        """
        names = {end: f"{layer}.{end}" for end in (*needed, *optional)}
        for end in needed:
            if names[end] not in self.tensors:
                raise self.error(names[end], "is missing")
        dense = f"{layer}.weight"
        if "weight" not in names and dense in self.tensors:
            raise self.error(dense, f"is dense, but there is {names[needed[0]]!r} too")
        self._used |= set(names.values())
        return {end: name for end, name in names.items() if name in self.tensors}

    def shapes(
        self, names: Mapping[str, str], dtypes: Mapping[str, Any]
    ) -> dict[str, jax.ShapeDtypeStruct]:
        """What a layer's arrays should be, without reading them.

        Args:
          names: From `arrays`.
          dtypes: Dtype of each by the end of its name.

        Returns:
          Shapes as the file says, dtypes as given.
        """
        return {
            end: jax.ShapeDtypeStruct(self.tensors.shape(name), dtypes[end])
            for end, name in names.items()
        }

    def read(self, names: Mapping[str, str]) -> dict[str, np.ndarray]:
        """The arrays themselves.

        Raises:
          ValueError: If one is of 64 bits, which JAX would narrow without a word.
        """
        arrays = {end: self.tensors[name] for end, name in names.items()}
        for end, array in arrays.items():
            if array.dtype.itemsize > 4:
                raise self.error(names[end], f"is {array.dtype}, of more than 32 bits")
        return arrays

    def checked(self, layer: str, call: Callable[..., Any], *args: Any) -> Any:
        """What a function of a layer's arrays returns; its errors name the layer.

        Args:
          layer: Name of the layer.
          call: The function.
          *args: Its arguments.

        Returns:
          Its result.

        Raises:
          ValueError: If it raised a `ValueError` or `TypeError`.
        """
        try:
            return call(*args)
        except (TypeError, ValueError) as error:
            name = next((n for n in self._used if n.startswith(f"{layer}.")), layer)
            raise self.error(name, str(error)) from error

    def unused(self, ends: Sequence[str]) -> list[str]:
        """Tensors whose names end like arrays of a layer, but that no layer took."""
        return sorted(
            name
            for name in self.tensors
            if name not in self._used and name.rpartition(".")[2] in ends
        )

    def dense(self) -> dict[str, Entry]:
        """All tensors that no layer took through `arrays`."""
        return {
            name: Entry(self.tensors.shape(name), lambda n=name: self.tensors[n])
            for name in self.tensors
            if name not in self._used
        }
