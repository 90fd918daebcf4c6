"""Arrays by name in one file, and params trees filled with them."""

import os
import pathlib
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jeff import base, tree
from jeff.io.checkpoint import Tensors

__all__ = ["fill_params", "read_arrays"]

_SUFFIXES = (".npz", ".safetensors")
_LISTED = 4  # names that an error lists


def read_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads all arrays of a file.

    Args:
      path: A ``.npz`` or ``.safetensors`` file.

    Returns:
      The arrays by name.

    Raises:
      ValueError: If there is no such file, it is cut short or of another kind; it is
        named.

    Examples:
      >>> import tempfile
      >>> file = pathlib.Path(tempfile.mkdtemp()) / "data.npz"
      >>> np.savez(file, inputs=np.ones((3, 2)), labels=np.arange(3))
      >>> {name: a.shape for name, a in read_arrays(file).items()}
      {'inputs': (3, 2), 'labels': (3,)}
    """
    file = pathlib.Path(path)
    if file.suffix not in _SUFFIXES:
        raise ValueError(f"{file} must be a {' or '.join(_SUFFIXES)} file")
    if not file.is_file():
        raise ValueError(f"there is no file {file}")
    if file.suffix == ".safetensors":
        tensors = Tensors.of_file(file)
        return {name: tensors[name] for name in tensors}
    try:
        # Opened here: of a bad archive np.load would leave the file open.
        with file.open("rb") as stream:
            archive = np.load(stream, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise ValueError("it holds one array without a name")
            return {name: archive[name] for name in archive.files}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as error:
        raise ValueError(f"{file} is cut short or no .npz file: {error}") from error


def fill_params(params: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """A params tree with all its leaves from a file.

    Args:
      params: The tree; shapes and dtypes of its leaves say what is expected.
      arrays: An array for every leaf, by the names of `jeff.tree.flatten`.

    Returns:
      A tree of the same structure, of arrays of the dtypes of `params`.

    Raises:
      ValueError: If arrays are missing, extra or misshapen (the first few are named),
        or a leaf is a stored weight.

    Examples:
      >>> fill_params({"w": np.zeros(2)}, {"v": np.ones(2)})
      Traceback (most recent call last):
        ...
      ValueError: params have no leaf v; missing: w
    """
    leaves, treedef = tree.flatten(params)
    extra = [n for n in arrays if n not in leaves]
    missing = [n for n in leaves if n not in arrays]
    if extra or missing:
        parts = [f"params have no leaf {_listed(extra)}"] if extra else []
        parts += [f"missing: {_listed(missing)}"] if missing else []
        raise ValueError("; ".join(parts))
    filled = []
    for name, leaf in leaves.items():
        if base.is_stored(leaf):
            raise ValueError(f"leaf {name!r} is stored as codes, not as an array")
        if np.shape(leaf) != arrays[name].shape:
            raise ValueError(
                f"leaf {name!r} must be {list(np.shape(leaf))}, it is "
                f"{list(arrays[name].shape)}"
            )
        filled.append(jnp.asarray(arrays[name], jnp.result_type(leaf)))
    return treedef.unflatten(filled)


def _listed(names: list[str]) -> str:
    rest = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {rest} more" if rest > 0 else "")
