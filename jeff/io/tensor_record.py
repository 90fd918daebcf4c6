"""Arrays and one JSON object as the bytes of a safetensors file, and back, to the bit.

The same arrays and the same object give the same bytes: nothing in the file is of a
time, a place or a hash.
"""

import json
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors
from safetensors import numpy as safetensors_numpy

__all__ = ["Tensors", "from_tensors", "to_tensors"]

Tensors = dict[str, np.ndarray]


def to_tensors(tensors: Mapping[str, Any], record: Any) -> bytes:
    """A safetensors file of arrays and a JSON object.

    Args:
      tensors: Arrays by name, of any dtype of JAX.
      record: What JSON can hold.

    Returns:
      The bytes of the file.

    Examples:
      >>> data = to_tensors({"a": jnp.ones(2, jnp.bfloat16)}, {"b": [1]})
      >>> tensors, record = from_tensors(data)
      >>> tensors["a"].dtype, record
      (dtype(bfloat16), {'b': [1]})
    """
    plain, dtypes = {}, {}
    for name, array in tensors.items():
        array = np.asarray(array, order="C")
        dtypes[name] = array.dtype.name
        if array.dtype.kind == "V" or array.dtype.name not in np.sctypeDict:
            array = array.view(f"u{array.dtype.itemsize}")  # bfloat16 and its like
        plain[name] = array
    # One entry: several would be written in any order, and the bytes would differ.
    metadata = {"jeff": json.dumps({"dtypes": dtypes, "record": record})}
    return safetensors_numpy.save(plain, metadata=metadata)


def from_tensors(data: bytes) -> tuple[Tensors, Any]:
    """What `to_tensors` was given.

    Args:
      data: The bytes of a file.

    Returns:
      ``(tensors, record)``.

    Raises:
      ValueError: If it is no such file.

    Examples:
      >>> from_tensors(b"cut off")
      Traceback (most recent call last):
        ...
      ValueError: not a safetensors file with a record in it
    """
    try:
        tensors = safetensors_numpy.load(data)
        size = int.from_bytes(data[:8], "little")
        metadata = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["jeff"])
        dtypes, record = metadata["dtypes"], metadata["record"]
        arrays = {n: tensors[n].view(jnp.dtype(kind)) for n, kind in dtypes.items()}
    except (
        safetensors.SafetensorError, AttributeError, KeyError, TypeError, ValueError
    ) as error:  # fmt: skip
        raise ValueError("not a safetensors file with a record in it") from error
    return arrays, record
