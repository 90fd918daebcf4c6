"""Named tensor maps: what checkpoints of quantized models are written from and read to.

A map gives each Hugging Face name a dense array in PyTorch's orientation, ``[out, in]``
for a linear layer, or, under ``NAME.weight``, a `jeff.quantize.QTensor` that stands for
the ``[in, out]`` kernel of that layer.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jeff import base
from jeff.io.tensor_files import Piece, dense_piece
from jeff.quantize import QTensor
from pallas_kernels.interchange import Codes

__all__ = [
    "NOTHING",
    "Scheme",
    "as_codes",
    "as_weight",
    "check_scale",
    "layer_name",
    "one_of",
    "pieces",
    "quantized",
    "scheme",
]

Tensors = Mapping[str, Any]

NOTHING = "no tensor is a QTensor, so there is nothing quantized to write"


class Scheme(NamedTuple):
    """What the quantizers of a layer have in common with those of its neighbors.

    Attributes:
      bits: Width of a code.
      group_size: Inputs that share a scale; all of them if there is one group.
      groups: Groups per output.
      symmetric: Whether there are no zero points.
    """

    bits: int
    group_size: int
    groups: int
    symmetric: bool


def layer_name(name: str) -> str:
    """Name of the layer whose weight a `QTensor` is.

    Raises:
      ValueError: If `name` is not that of a weight.

    Examples:
      >>> layer_name("model.layers.0.mlp.up_proj.weight")
      'model.layers.0.mlp.up_proj'
    """
    layer = name.removesuffix(".weight")
    if layer == name or not layer:
        raise ValueError(
            f"tensor {name!r} is a QTensor, which stands for the weight of a layer: "
            "its name must end in '.weight'"
        )
    return layer


def pieces(
    tensors: Tensors,
    encode: Callable[[QTensor], Mapping[str, Any]],
    constants: Callable[[QTensor], Mapping[str, np.ndarray]] | None = None,
) -> dict[str, dict[str, Piece]]:
    """What is to be written for each tensor; nothing is encoded yet.

    Args:
      tensors: A named tensor map.
      encode: The arrays of a layer's weight by the end of their names. Traced for
        their shapes; then called when they are written, once for all arrays of one
        width.
      constants: Further arrays of a layer, by the end of their names, that do not
        depend on its numbers.

    Returns:
      The pieces of each tensor by name.

    Raises:
      TypeError: If a tensor is neither an array nor a `QTensor`.
      ValueError: If `encode` raises it, or the name of a `QTensor` is not that of a
        weight; the tensor is named.
    """
    units: dict[str, dict[str, Piece]] = {}
    last: dict[str, Any] = {}  # the layer that was encoded last, alone

    def made(name, end):
        if last.get("name") != name:
            last.clear()
            last.update(name=name, arrays=encode(tensors[name]))
        return last["arrays"][end]

    for name in tensors:
        tensor = tensors[name]
        if isinstance(tensor, QTensor):
            layer = layer_name(name)
            try:
                arrays = jax.eval_shape(encode, tensor)
            except (TypeError, ValueError) as error:
                raise ValueError(f"tensor {name!r}: {error}") from error
            units[name] = {
                f"{layer}.{end}": Piece(
                    spec.shape,
                    np.dtype(spec.dtype),
                    lambda n=name, e=end: made(n, e),
                )
                for end, spec in arrays.items()
            }
            for end, array in (constants(tensor) if constants else {}).items():
                units[name][f"{layer}.{end}"] = dense_piece(name, array)
        elif base.is_stored(tensor):
            raise TypeError(
                f"tensor {name!r} is a {type(tensor).__name__}, which files of weights "
                "do not have; decode it first"
            )
        else:
            units[name] = {name: dense_piece(name, tensor, lambda n=name: tensors[n])}
    return units


def as_codes(q: QTensor) -> Codes:
    """The plain codes of a layer's weight.

    Args:
      q: ``[K, N]`` contracted over K.

    Returns:
      Codes ``[K, N]``, scales and zero points ``[G, N]``.

    Raises:
      ValueError: If it is no matrix, contracted over another axis, has groups along
        its outputs, or floating zero points.
    """
    if q.ndim != 2 or q.contract != (-2,):
        raise ValueError(
            "layouts of other programs hold a matrix [in, out] contracted over its "
            f"inputs; this one is {q.shape} contracted over {q.contract}"
        )
    outputs = q.shape[1]
    scale, zero = q.scale, q.zero
    if scale.shape[1] not in (1, outputs):
        raise ValueError(
            f"its scales {scale.shape} are of groups along the outputs, which layouts "
            "of other programs do not have"
        )
    if zero is not None and jnp.issubdtype(zero.dtype, jnp.floating):
        raise ValueError(
            "its zero points are floating; layouts of other programs have integers: "
            'quantize with zero_point="int" or "int_incl_zero"'
        )
    shape = (scale.shape[0], outputs)
    zero = None if zero is None else jnp.broadcast_to(zero, shape)
    return Codes(q.codes(), jnp.broadcast_to(scale, shape), zero)


def as_weight(codes: Codes, *, bits: int) -> "QTensor | np.ndarray":
    """The weight of plain codes.

    Args:
      codes: Of one matrix.
      bits: Width of a code; 5, 6 and 7 are held in 8 bits.

    Returns:
      The packed weight ``[K, N]``, decoding to float32. With an `order`, which no
      `QTensor` has, the dense float32 ``[N, K]`` instead, which is exact for float16
      scales: their 11 bits are multiplied with at most 8.
    """
    zero = codes.zero
    if codes.order is not None:
        weight: Any = as_weight(codes._replace(order=None), bits=bits)
        dense = np.empty(weight.shape, np.float32)
        dense[np.asarray(codes.order)] = weight.decode()
        return np.ascontiguousarray(dense.T)
    if bits in (5, 6, 7):
        if zero is None:
            zero = jnp.full(codes.scale.shape, 2 ** (bits - 1), jnp.uint8)
        bits = 8
    return QTensor.from_codes(codes.codes, codes.scale, zero, bits=bits)


def check_scale(q: QTensor, layout: str) -> None:
    """Refuses scales that would have to be rounded.

    Args:
      q: The weight of a layer.
      layout: What to call the layout.

    Raises:
      ValueError: If they are not float16.
    """
    if q.scale.dtype != jnp.float16:
        raise ValueError(
            f"its scales are {q.scale.dtype}; {layout} has float16, and rounding them "
            'would change the weight: quantize with scale_dtype="float16"'
        )


def scheme(q: QTensor) -> Scheme:
    """How a layer's weight is quantized."""
    groups = q.scale.shape[0]
    return Scheme(q.bits, q.shape[0] // groups, groups, q.zero is None)


def one_of(tensors: Tensors, layout: str) -> Scheme:
    """The scheme that all quantized layers have, where a layout has only one.

    Args:
      tensors: A named tensor map with a `QTensor`.
      layout: What to call the layout in an error.

    Returns:
      The scheme; `group_size` is -1 where every output of every layer has one group
      and inputs differ; `symmetric` if all are.

    Raises:
      ValueError: If widths of codes or sizes of groups differ; two layers are named.
    """
    found = {name: scheme(q) for name, q in quantized(tensors)}
    if not found:
        raise ValueError(NOTHING)
    (first, one), *others = found.items()
    whole = all(s.groups == 1 for s in found.values())
    symmetric = all(s.symmetric for s in found.values())
    for name, other in others:
        differs = other.group_size != one.group_size and not whole
        if other.bits != one.bits or differs:
            raise ValueError(
                f"{layout} has one width of codes and one size of groups for all "
                f"layers; {first!r} has {one.bits} bits in groups of {one.group_size}, "
                f"{name!r} {other.bits} bits in groups of {other.group_size}"
            )
    if len({s.group_size for s in found.values()}) > 1:
        one = one._replace(group_size=-1)
    return one._replace(symmetric=symmetric)


def quantized(tensors: Tensors) -> Iterator[tuple[str, QTensor]]:
    """Names and weights of the quantized layers, one by one."""
    return ((n, t) for n, t in tensors.items() if isinstance(t, QTensor))
