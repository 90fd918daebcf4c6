"""The form between layouts: plain codes, scales and zero points of one matrix."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import core, lax

__all__ = [
    "Codes",
    "apply_order",
    "as_codes",
    "as_scale",
    "as_words",
    "group_index",
    "input_order",
    "restore_order",
    "signed_words",
]


class Codes(NamedTuple):
    """A quantized matrix, not packed, of K inputs and N outputs in G groups.

    Row k belongs to group ``g = k // (K / G)`` and to input ``order[k]``::

        w[order[k], n] = (codes[k, n] - zero[g, n]) * scale[g, n]

    so that ``x @ w`` is ``x[..., order] @ decoded``. Where `order` is ``None``, row k
    belongs to input k.

    Attributes:
      codes: uint8 ``[K, N]``, below ``2^bits``.
      scale: float16, bfloat16 or float32 ``[G, N]``; G divides K.
      zero: uint8 ``[G, N]``, or ``None`` for ``2^(bits - 1)`` everywhere.
      order: int32 ``[K]``, a permutation of the inputs, or ``None``.
    """

    codes: jax.Array
    scale: jax.Array
    zero: jax.Array | None = None
    order: jax.Array | None = None


def as_codes(weight: Codes, bits: int | None = None) -> Codes:
    """`weight` as JAX arrays that fit each other.

    Args:
      weight: What is to be written in some layout.
      bits: Width of a code in that layout, if codes and zero points are to be held
        against it; inside a trace there are no values to look at.

    Returns:
      The same codes, scales, zero points and order.

    Raises:
      TypeError: If `codes` or `zero` is not uint8, `order` not int32, or `scale` of
        another dtype.
      ValueError: If the shapes do not fit each other, or a code or a zero point is not
        below ``2^bits``.

    Examples:
      >>> as_codes(Codes(np.zeros((32, 8), np.uint8), np.ones((3, 8), np.float16)))
      Traceback (most recent call last):
        ...
      ValueError: scale of shape (3, 8) does not divide codes of shape (32, 8)
    """
    codes = _typed(weight.codes, "codes", (jnp.uint8,))
    if codes.ndim != 2:
        raise ValueError(f"codes must be [K, N], got shape {codes.shape}")
    scale = as_scale(weight.scale, "scale", "codes", codes.shape)
    zero, order = weight.zero, weight.order
    if zero is not None:
        zero = _typed(zero, "zero", (jnp.uint8,))
        if zero.shape != scale.shape:
            raise ValueError(f"zero has shape {zero.shape}, scale {scale.shape}")
    if order is not None:
        order = _typed(order, "order", (jnp.int32,))
        if order.shape != codes.shape[:1]:
            raise ValueError(
                f"order of shape {order.shape} does not fit codes of shape "
                f"{codes.shape}: expected {codes.shape[:1]}"
            )
    for name, a in (("codes", codes), ("zero", zero)):
        if bits is None or a is None or isinstance(a, core.Tracer) or not a.size:
            continue
        if int(a.max()) >= 2**bits:
            raise ValueError(f"{name} must be below 2^{bits}, got {int(a.max())}")
    return Codes(codes, scale, zero, order)


def as_scale(
    scale: Any, name: str, of: str, shape: tuple[int, ...], axis: int = 0
) -> jax.Array:
    """`scale` as a JAX array, if its groups divide a matrix.

    Args:
      scale: float16, bfloat16 or float32, of `shape` but for `axis`, whose size it
        divides.
      name: What to call it in an error.
      of: What to call the matrix.
      shape: Shape of the matrix.
      axis: Its axis of inputs.

    Returns:
      The array.

    Raises:
      TypeError: If it is of another dtype.
      ValueError: If the shapes do not fit each other.
    """
    scale = _typed(scale, name, (jnp.float16, jnp.bfloat16, jnp.float32))
    fits = scale.ndim == 2 and scale.shape[1 - axis] == shape[1 - axis]
    if not fits or not scale.shape[axis] or shape[axis] % scale.shape[axis]:
        raise ValueError(
            f"{name} of shape {scale.shape} does not divide {of} of shape {shape}"
        )
    return scale


def as_words(words: Any, name: str, shape: tuple[int, ...] | None = None) -> jax.Array:
    """32-bit words, signed or not, as uint32.

    Args:
      words: int32 or uint32 ``[rows, columns]``.
      name: What to call them in an error.
      shape: The shape that they must have, if that is known.

    Returns:
      uint32, the same bits.

    Raises:
      TypeError: If they are of another dtype.
      ValueError: If they are of another shape.

    Examples:
      >>> print(as_words(np.array([[-1]], np.int32), "qweight"))
      [[4294967295]]
    """
    words = _typed(words, name, (jnp.int32, jnp.uint32))
    if words.ndim != 2 or shape not in (None, words.shape):
        wanted = "[rows, columns]" if shape is None else shape
        raise ValueError(f"{name} has shape {words.shape}, expected {wanted}")
    return lax.bitcast_convert_type(words, jnp.uint32)


def signed_words(words: jax.Array) -> jax.Array:
    """uint32 words as the int32 that PyTorch keeps them in."""
    return lax.bitcast_convert_type(words, jnp.int32)


def input_order(g_idx: Any, groups: int) -> np.ndarray | None:
    """The order of inputs in which groups are contiguous.

    Args:
      g_idx: Integers ``[K]``: the group of each input. Read on the host: not traced.
      groups: G.

    Returns:
      int32 ``[K]``, stable: inputs of a group stay in order. ``None`` where every
      input is in place already, that is where ``g_idx[k] == k // (K / G)``.

    Raises:
      TypeError: If `g_idx` is traced, or not of integers.
      ValueError: If it is not of one axis, or some group has not K / G inputs.

    Examples:
      >>> print(input_order(np.array([1, 0, 1, 0]), 2))
      [1 3 0 2]
      >>> print(input_order(np.array([0, 0, 1, 1]), 2))
      None
    """
    if isinstance(g_idx, core.Tracer):
        raise TypeError(
            "g_idx must be an array that can be read, not a traced one: it decides "
            "whether there is an order at all. Close over it, or pass None"
        )
    index = np.asarray(g_idx)
    if not np.issubdtype(index.dtype, np.integer):
        raise TypeError(f"g_idx must be integers, got {index.dtype}")
    if index.ndim != 1:
        raise ValueError(f"g_idx must be [K], got shape {index.shape}")
    inside = (index >= 0) & (index < groups)
    counts = np.bincount(index[inside], minlength=groups)
    if not inside.all() or (counts * groups != index.size).any():
        raise ValueError(
            f"g_idx must name each of {groups} groups {index.size / groups:g} times; "
            f"got values from {index.min()} to {index.max()}, and {counts.min()} to "
            f"{counts.max()} inputs per group"
        )
    order = np.argsort(index, kind="stable").astype(np.int32)
    return None if (order == np.arange(index.size)).all() else order


def apply_order(
    codes: jax.Array, g_idx: Any, groups: int
) -> tuple[jax.Array, jax.Array | None]:
    """Codes with the inputs of a group side by side, and `input_order`.

    Args:
      codes: uint8 ``[K, N]``, in the order of the inputs.
      g_idx: Integers ``[K]``, or ``None`` if they are in place.
      groups: G.

    Returns:
      ``(codes, order)``.

    Raises:
      TypeError: As `input_order`.
      ValueError: As `input_order`, and if the shapes do not fit each other.

    Examples:
      >>> codes = jnp.array([[1], [2], [3], [4]], jnp.uint8)
      >>> print(apply_order(codes, np.array([1, 0, 1, 0]), 2)[0].T)
      [[2 4 1 3]]
    """
    if g_idx is None:
        return codes, None
    if np.shape(g_idx) != codes.shape[:1]:
        raise ValueError(
            f"g_idx has shape {np.shape(g_idx)}, expected {codes.shape[:1]}"
        )
    order = input_order(g_idx, groups)
    if order is None:
        return codes, None
    order = jnp.asarray(order)
    return jnp.take(codes, order, axis=0), order


def restore_order(weight: Codes) -> tuple[jax.Array, jax.Array | None]:
    """Inverse of `apply_order`: codes by input, and the row that each one was in.

    Args:
      weight: From `as_codes`.

    Returns:
      ``(codes, rows)``; `rows` is int32 ``[K]``, the inverse of the order, or ``None``.

    Examples:
      >>> codes = np.array([[1], [2], [3]], np.uint8)
      >>> order = jnp.array([2, 0, 1], jnp.int32)
      >>> print(restore_order(Codes(codes, None, None, order))[0].T)
      [[2 3 1]]
    """
    if weight.order is None:
        return weight.codes, None
    rows = jnp.argsort(weight.order).astype(jnp.int32)
    return jnp.take(weight.codes, rows, axis=0), rows


def group_index(rows: jax.Array | None, size: int, groups: int) -> jax.Array:
    """The group of each input, int32 ``[K]``, from the rows of `restore_order`.

    Examples:
      >>> print(group_index(None, 4, 2))
      [0 0 1 1]
    """
    rows = jnp.arange(size, dtype=jnp.int32) if rows is None else rows
    return rows // (size // groups)


def _typed(array: Any, name: str, dtypes: tuple[Any, ...]) -> jax.Array:
    """`array` as a JAX array, if it is of one of some dtypes."""
    dtype = getattr(array, "dtype", None)
    if not isinstance(dtype, np.dtype) or dtype not in dtypes:
        wanted = " or ".join(jnp.dtype(d).name for d in dtypes)
        what = dtype if isinstance(dtype, np.dtype) else type(array).__name__
        raise TypeError(f"{name} must be an array of {wanted}, got {what}")
    return jnp.asarray(array)
